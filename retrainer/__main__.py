"""`python -m retrainer` and the `retrainer` command."""

import sys

from retrainer.cli import main

if __name__ == "__main__":
    sys.exit(main())
