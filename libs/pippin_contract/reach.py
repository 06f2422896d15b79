"""What names reach: a key's globs, and fallbacks.

The gateway, the operator and who checks manifests before they are applied must come to the same
answer.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

T = TypeVar("T")

#: Matches nothing: what a key without models may use.
NOTHING: Final = re.compile(r"(?!)")
#: Among the namespaces that a model is opened to: all of them.
ALL: Final = "*"


@dataclass(frozen=True, slots=True)
class Globs:
    """Names that a key may use: of its own namespace, and of others as namespace/name."""

    own: re.Pattern[str] = NOTHING
    others: re.Pattern[str] = NOTHING

    @property
    def leave_home(self) -> bool:
        """Whether a model of another namespace may be meant."""
        return self.others != NOTHING

    def cover(self, home: str, namespace: str, names: Iterable[str]) -> bool:
        """Whether one of a model's names is among them, for a key of the namespace `home`."""
        if namespace == home:
            return any(map(self.own.match, names))
        return any(self.others.match(f"{namespace}/{name}") for name in names)


def globs(texts: Iterable[str], home: str) -> Globs:
    """`own-namespace/glob` means `glob`; one without a slash never reaches into another namespace,
    `*` neither."""
    texts = list(texts)
    own = [text.removeprefix(f"{home}/") for text in texts]
    return Globs(
        own=_any([text for text in own if "/" not in text]),
        others=_any([text for text in texts if "/" in text]),
    )


def opened(namespaces: Container[str], home: str) -> bool:
    """Whether a model that names these lets keys of the namespace `home` in."""
    return home in namespaces or ALL in namespaces


def circle(start: T, named: Callable[[T], Iterable[T]]) -> list[T]:
    """A way along fallbacks from `start` back to it, found depth first; empty: there is none."""
    seen: set[T] = set()
    paths = [[start]]
    while paths:
        path = paths.pop()
        for other in reversed(list(named(path[-1]))):
            if other == start:
                return [*path, other]
            if other not in seen:
                seen.add(other)
                paths.append([*path, other])
    return []


def _any(texts: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(fnmatch.translate, texts))) if texts else NOTHING
