"""A Whisper model's tokens: words, languages, times, and what it is asked to do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ...base import PromptRefused

#: Models with fewer tokens know English only.
_MULTILINGUAL = 51865
#: Steps of 20 ms before which something must be said.
_LATEST_FIRST = 50


class Vocabulary:
    """Words lie below `end`, times from `times` on, and in between what is never written."""

    def __init__(self, path: Path, config: Mapping[str, Any], size: int) -> None:
        """Raises KeyError and ValueError, and OSError."""
        told = generation(path)
        self._tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        self.end = self._id("<|endoftext|>")
        self.begin = self._id("<|startoftranscript|>")
        self.before = self._id("<|startofprev|>")
        self.transcribe = self._id("<|transcribe|>")
        self.times = self._id("<|notimestamps|>") + 1
        ids = self._tokenizer.get_vocab(with_added_tokens=True)
        self.no_speech = ids.get("<|nospeech|>", ids.get("<|nocaptions|>"))
        multilingual = told.get("is_multilingual", size >= _MULTILINGUAL)
        self.languages = self._languages(ids) if multilingual else {}
        self.latest_first = int(told.get("max_initial_timestamp_index") or _LATEST_FIRST)
        self.never = self._never(told.get("suppress_tokens") or config.get("suppress_tokens"))
        self.never_first = (*self.words(" "), self.end)
        if not self.end < self.begin < self.times < size:
            raise ValueError("tokenizer.json does not belong to these weights")

    def _id(self, name: str) -> int:
        found: int | None = self._tokenizer.token_to_id(name)
        if found is None:
            raise ValueError(f"tokenizer.json: {name} is missing")
        return found

    def _languages(self, ids: Mapping[str, int]) -> dict[str, int]:
        """They lie between the beginning and the tasks."""
        tasks = min(self.transcribe, self._id("<|translate|>"))
        return {name.strip("<|>"): i for name, i in ids.items() if self.begin < i < tasks}

    def _never(self, told: Sequence[int] | None) -> tuple[int, ...]:
        """Sounds that are no words, and what only asks."""
        noises = [token for token in told or () if 0 <= token < self.end]
        return (*noises, *range(self.end + 1, self.times))

    def words(self, text: str) -> list[int]:
        """Without what a text may spell that is no word, such as <|endoftext|>."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [token for token in ids if token < self.end]

    def text(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode([token for token in tokens if token < self.end])
        return text

    def asking(self, language: str) -> list[int]:
        """What stands before a transcript."""
        if not self.languages:
            return [self.begin]
        return [self.begin, self.languages[language], self.transcribe]

    def check(self, language: str | None) -> None:
        """Raises PromptRefused."""
        if language is None or language in self.languages:
            return
        if self.languages:
            known = ", ".join(sorted(self.languages))
            raise PromptRefused(
                f"'language': this model does not know {language!r}, only {known}", "language"
            )
        if language != "en":
            raise PromptRefused(
                f"'language': this model knows English only, not {language!r}: leave it out",
                "language",
            )


def generation(path: Path) -> dict[str, Any]:
    """What a model's directory says of how it is used."""
    file = path / "generation_config.json"
    found = json.loads(file.read_bytes()) if file.exists() else {}
    return found if isinstance(found, dict) else {}
