"""A serving container: answers with its model's name, refuses what is not JSON, dies when asked to.

A model directory with the file `sick` never becomes healthy; one with `dead` ends at once.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

model = Path(os.environ["SAGEMAKER_BASE_DIR"]) / "model"
if (model / "dead").exists():
    sys.stdout.write("no weights\n")
    sys.exit(5)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer(500 if (model / "sick").exists() else 200, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body == b"die":
            os._exit(9)
        try:
            request = json.loads(body)
        except ValueError:
            self.answer(415, {"error": "not JSON"})
            return
        self.answer(200, {"model": (model / "name").read_text(), "request": request, "pid": os.getpid()})

    def answer(self, status: int, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


assert sys.argv[1:] == ["serve"]
address = (os.environ["SAGEMAKER_BIND_TO_HOST"], int(os.environ["SAGEMAKER_BIND_TO_PORT"]))
ThreadingHTTPServer(address, Handler).serve_forever()
