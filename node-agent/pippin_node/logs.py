"""Reads container logs: lines in the CRI format, over rotated files, from either end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

CHUNK = 65536


@dataclass(frozen=True)
class Line:
    """One line or, when `partial`, a part of one."""

    time: str
    stream: str
    partial: bool
    text: bytes

    def render(self, timestamps: bool) -> bytes:
        head = self.time.encode() + b" " if timestamps else b""
        return head + self.text + (b"" if self.partial else b"\n")


def parse(raw: bytes) -> Line | None:
    """One line of a log file without its end; None when it is none of ours."""
    parts = raw.split(b" ", 3)
    if len(parts) != 4:
        return None
    time, stream, tag, text = parts
    return Line(time.decode(errors="replace"), stream.decode(errors="replace"), tag == b"P", text)


def files(log: Path) -> list[Path]:
    """The log and what was rotated away, oldest first."""
    rotated = []
    for path in log.parent.glob(f"{log.name}.*"):
        if path.suffix[1:].isdecimal():
            rotated.append((int(path.suffix[1:]), path))
    return [path for _, path in sorted(rotated, reverse=True)] + ([log] if log.exists() else [])


class Reader:
    """One look at a log: what is there now, from either end, and then what comes.

    Follows rotation. Raises FileNotFoundError when the container has not written a log.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._file = log.open("rb")
        self._end = os.fstat(self._file.fileno()).st_size
        self._rest = b""

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def history(self) -> Iterator[Line]:
        """All lines on record, oldest first."""
        for path in self._older():
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                yield from _lines(file.readlines())
        self._file.seek(0)
        while self._file.tell() < self._end:
            raw = self._file.readline()
            if not raw.endswith(b"\n"):
                self._rest = raw
                return
            yield from _lines([raw])

    def tail(self, count: int) -> list[Line]:
        """The last `count` lines; parts belong to the line that they make."""
        found: list[Line] = []
        whole = 0
        for line in _lines(self._backwards()):
            if not line.partial or not found:
                whole += 1
            if whole > count:
                break
            found.append(line)
        self._file.seek(self._end)
        return found[::-1]

    def more(self) -> list[Line]:
        """What came since the last call, after `history` or `tail`."""
        found = self._drain()
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._log).st_ino != os.fstat(self._file.fileno()).st_ino:
                found += self._drain()
                self._file.close()
                self._file = self._log.open("rb")
                found += self._drain()
        return found

    def _drain(self) -> list[Line]:
        *raw, self._rest = (self._rest + self._file.read()).split(b"\n")
        return list(_lines(raw))

    def _older(self) -> list[Path]:
        """Files that were rotated away before the one that is open, oldest first."""
        mine = os.fstat(self._file.fileno()).st_ino
        older = []
        for path in files(self._log):
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_ino == mine:
                    break
                older.append(path)
        return older

    def _backwards(self) -> Iterator[bytes]:
        yield from _reversed_lines(self._file, self._end)
        for path in reversed(self._older()):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                yield from _reversed_lines(file, os.fstat(file.fileno()).st_size)


def _lines(raw: Iterable[bytes]) -> Iterator[Line]:
    for one in raw:
        line = parse(one.rstrip(b"\n"))
        if line is not None:
            yield line


def _reversed_lines(file: BinaryIO, position: int) -> Iterator[bytes]:
    """Lines of a file from its end, without reading more than is asked for."""
    rest = b""
    while position > 0:
        step = min(CHUNK, position)
        position -= step
        file.seek(position)
        rest, *lines = (file.read(step) + rest).split(b"\n")
        yield from (line for line in reversed(lines) if line)
    if rest:
        yield rest


def last_words(log: Path, max_lines: int = 80, max_bytes: int = 2048) -> str:
    """The end of the output: the termination message of a container that left none."""
    try:
        with Reader(log) as reader:
            text = b"".join(line.render(False) for line in reader.tail(max_lines))
    except FileNotFoundError:
        return ""
    return text[-max_bytes:].decode(errors="replace")
