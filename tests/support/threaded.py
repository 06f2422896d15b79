"""An HTTP server of the test's own, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer


@contextmanager
def serving(server: HTTPServer) -> Iterator[str]:
    """Its URL, until the end."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield "http://{}:{}".format(*server.socket.getsockname())
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
