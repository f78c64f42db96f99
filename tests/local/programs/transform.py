"""A processing container that puts its input into capitals, or fails without any."""

import os
import sys
from pathlib import Path

base = Path(os.environ["SAGEMAKER_BASE_DIR"])
text = (base / "processing" / "input" / "text" / "a.txt").read_text()
if text == "bad":
    (base / "output").mkdir(exist_ok=True)
    (base / "output" / "message").write_text("the text is bad")
    sys.exit(1)
(base / "processing" / "output" / "a.txt").write_text(" ".join([text.upper(), *sys.argv[1:]]))
