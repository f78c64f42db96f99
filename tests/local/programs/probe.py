"""A training or processing container that looks at the contract and does what its hyperparameters say.

`do` is one of: report, fail, exit, hang, count (checkpoints a counter up to `until`, one step in 50 ms).
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

base = Path(os.environ["SAGEMAKER_BASE_DIR"])


def report() -> None:
    files = sorted(path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file())
    seen = {"arguments": sys.argv[1:], "environment": dict(os.environ), "files": files, "cwd": str(Path.cwd())}
    for path in (base / "input" / "config").glob("*.json"):
        seen[path.stem] = json.loads(path.read_text())
    sys.stdout.write("train_loss=0.5;\ntrain_loss=0.25;\n")
    (base / "model" / "seen.json").write_text(json.dumps(seen))
    (base / "output" / "data" / "extra.txt").write_text("extra")


def count(until: int) -> None:
    checkpoint = base / "checkpoints" / "counter"
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    (base / "model" / f"started-at-{done}").touch()
    for step in range(done, until):
        time.sleep(0.05)
        scratch = checkpoint.with_suffix(".tmp")
        scratch.write_text(str(step + 1))
        scratch.replace(checkpoint)
    (base / "model" / "counted.txt").write_text(str(until))


def main() -> None:
    settings = json.loads((base / "input" / "config" / "hyperparameters.json").read_text())
    match settings["do"]:
        case "report":
            report()
        case "fail":
            (base / "output" / "failure").write_text("the loss is not a number" + "!" * 2000)
            sys.exit(3)
        case "exit":
            sys.stdout.write("last words\n")
            sys.exit(4)
        case "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            sys.stdout.write(f"pid={os.getpid()};\n")
            sys.stdout.flush()
            time.sleep(600)
        case "count":
            count(int(settings["until"]))


main()
