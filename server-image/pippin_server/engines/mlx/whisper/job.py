"""What goes to the thread that hears, and what comes back; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...media import Hearing, Passage, Recording


@dataclass(frozen=True, slots=True)
class Job:
    recording: Recording
    hearing: Hearing


@dataclass(frozen=True, slots=True)
class Heard:
    """What a window added to a transcript."""

    passages: tuple[Passage, ...]
    finish: Literal["stop"] | None = None
