"""A small program that stands in for Pippin's entry points in the node agent's tests.

`serve` answers GET requests; what it does is told by paths, so that a test can make it behave:
`/ready` and `/livez` say 503 while a file `unready` or `dead` lies in its /tmp, `/env` shows its
environment, `/file?path=` a file of its own, `/exit?code=` ends it, `/say?text=` writes to its log.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pippin_contract import native


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        status, body = answer(url.path, query)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def local(path: str) -> Path:
    return native.resolve(path, os.environ)


def answer(path: str, query: dict[str, str]) -> tuple[int, bytes]:
    if path == "/ready":
        return (503 if local("/tmp/unready").exists() else 200), b""
    if path == "/livez":
        return (503 if local("/tmp/dead").exists() else 200), b""
    if path == "/env":
        return 200, json.dumps(dict(os.environ)).encode()
    if path == "/pid":
        return 200, str(os.getpid()).encode()
    if path == "/args":
        return 200, json.dumps(sys.argv[1:]).encode()
    if path == "/file":
        return 200, local(query["path"]).read_bytes()
    if path == "/touch":
        local(query["path"]).touch()
        return 200, b""
    if path == "/say":
        print(query["text"], flush=True)
        return 200, b""
    if path == "/exit":
        os._exit(int(query["code"]))
    return 404, b""


def serve() -> None:
    host, port = native.bind("http", "0.0.0.0", 8000, os.environ)
    with ThreadingHTTPServer((host, port), Handler) as server:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        print(f"serving on {port}", flush=True)
        server.serve_forever()


def crash(code: int, message: str) -> None:
    print("about to fail", flush=True)
    if message:
        Path(os.environ[native.TERMINATION_LOG]).write_text(message)
    sys.exit(code)


def main() -> None:
    match sys.argv[1:]:
        case ["serve", *_]:
            serve()
        case ["drain"]:
            local("/var/out/drained").touch()
        case ["crash", code, *message]:
            crash(int(code), " ".join(message))
        case ["stubborn"]:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("will not go", flush=True)
            while True:
                time.sleep(3600)
        case ["count", number]:
            for index in range(int(number)):
                print(f"line {index}", flush=True)
        case other:
            sys.exit(f"unknown: {other}")


if __name__ == "__main__":
    main()
