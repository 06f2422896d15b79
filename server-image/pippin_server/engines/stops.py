"""Stop sequences in streamed text: what may be one is held back, so that none ever leaks."""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Feed text as it comes; get back what may be shown, and whether a stop was met."""

    __slots__ = ("_held", "_stops")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """After True nothing more may be shown; the stop and all behind it are dropped."""
        if not self._stops:
            return text, False
        text = self._held + text
        met = [at for at in map(text.find, self._stops) if at >= 0]
        if met:
            self._held = ""
            return text[: min(met)], True
        keep = self._undecided(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        """What was held back and turned out to be no stop: the answer ended otherwise."""
        held, self._held = self._held, ""
        return held

    def _undecided(self, text: str) -> int:
        """Length of the longest end of the text that begins a stop sequence."""
        for size in range(min(len(text), max(map(len, self._stops)) - 1), 0, -1):
            end = text[-size:]
            if any(stop.startswith(end) for stop in self._stops):
                return size
        return 0
