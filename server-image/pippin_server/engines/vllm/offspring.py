"""The processes that vLLM starts: they end with us, log as we do, and say why they failed.

Each calls `settle_in` as it starts: pyproject.toml names it as a plugin of vLLM's.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from multiprocessing.connection import wait
from pathlib import Path

from pippin_edge import logs

from .surroundings import LAST_WORDS, LOG_LEVEL, SPARE_PLAIN_ROWS


def settle_in() -> None:
    """Does nothing in any process but an engine's."""
    parent = multiprocessing.parent_process()
    if parent is None or LAST_WORDS not in os.environ:
        return
    watch = threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True)
    watch.start()
    logs.configure(os.environ.get(LOG_LEVEL, "info"))
    logging.getLogger().addHandler(LastWords(Path(os.environ[LAST_WORDS])))
    if SPARE_PLAIN_ROWS in os.environ:
        from .plainrows import spare

        spare()


def _end_with(sentinel: int) -> None:
    """A server that is killed cannot end its engine, which would keep the GPU for ever."""
    wait([sentinel])
    os._exit(1)


class LastWords(logging.Handler):
    """Keeps the first exception that is logged: what follows comes of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(level=logging.ERROR)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return
        try:
            with self._path.open("x") as file:
                file.write(f"{type(error).__name__}: {error}")
        except OSError:  # said already, or nowhere to say it
            return
