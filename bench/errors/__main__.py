"""Play the streams, estimate the chunks, and write both into bench/README.md, between their own markers.

python -m bench.errors [--share 0.1] [--seed 1] [--keep] [--peers .venv-peers/bin/python]
"""

import argparse
import time
from pathlib import Path

from bench import telling
from bench.errors import estimates, streams


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.errors", description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the streams (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="leave bench/README.md as it is")
    parser.add_argument("--peers", type=Path, default=Path(".venv-peers/bin/python"), help="a Python with NannyML")
    args = parser.parse_args()
    began = time.process_time()
    found = streams.tables(args.share, args.seed)
    beside = estimates.tables(args.peers)
    head = f"{telling.machine()}; seed {args.seed}; {time.process_time() - began:.0f} CPU seconds."
    text = "\n\n".join([head, *found, *beside])
    print(f"\n{text}")
    if not args.keep:
        telling.write("errors", text)


if __name__ == "__main__":
    main()
