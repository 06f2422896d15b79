"""`file:///directory`: weights that lie on this machine, below a directory that is allowed."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from .base import Surroundings, not_found, unauthorized, unreachable


def directory(uri: str, around: Surroundings) -> Path:
    """Raises LoadFailed. What leaves the allowed directories by `..` or by links is refused."""
    named = unquote(uri.removeprefix("file://"))
    if not named.startswith("/") or "\0" in named:
        raise not_found(f"{uri!r} is no source: write file:///directory")
    try:
        roots = [root.resolve() for root in around.roots]
        found = Path(named).resolve()
        if not any(found.is_relative_to(root) for root in roots):
            raise unauthorized(
                f"{uri}: this server allows no models there: PIPPIN_SERVER_FILE_ROOTS"
            )
        if not found.is_dir():
            raise not_found(f"{uri}: no such directory")
        for path in found.rglob("*"):
            if not any(path.resolve().is_relative_to(root) for root in roots):
                raise unauthorized(
                    f"{uri}: {path.name} is a link that leads out of what is allowed"
                )
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise unreachable(f"{uri}: it cannot be read", permanent=True) from error
    return found
