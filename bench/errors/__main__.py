"""Play the streams, estimate the chunks, and write both into bench/README.md, between their own markers.

python -m bench.errors [--share 0.1] [--seed 1] [--keep] [--peers .venv-peers/bin/python]
"""

import argparse
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from bench.errors import estimates, streams

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- errors: written by `make bench-errors` -->", "<!-- end of errors -->"


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
    today = datetime.now(UTC).date().isoformat()
    head = f"{today}; seed {args.seed}; {time.process_time() - began:.0f} CPU seconds on {os.cpu_count()} cores."
    text = "\n\n".join([head, *found, *beside])
    print(f"\n{text}")
    if not args.keep:
        before, _, rest = README.read_text().partition(BEGIN)
        README.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
