"""What the event loop hands to the engine's thread; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..base import Sampling

if TYPE_CHECKING:
    from .guide import Guide
    from .vision.gallery import Look


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt in tokens, checked to fit. `echo`: its text, where its scores are wanted; only then
    may `max_tokens` be 0. `adapter`: its number; 0: none. `looks`: at the pictures in the prompt,
    held until all is said: a prompt may be read again."""

    tokens: list[int]
    max_tokens: int
    sampling: Sampling
    guide: Guide | None = None
    echo: str | None = None
    adapter: int = 0
    looks: tuple[Look, ...] = ()
