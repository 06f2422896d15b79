"""A prompt's tokens, as CLIP reads them: always as many, between two marks and before padding."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from ...base import PromptTooLong
from . import told

_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Words:
    """`length`: tokens that are read; `limit`: those of a text, with its marks."""

    def __init__(self, path: Path, length: int, limit: int) -> None:
        """Raises KeyError, ValueError and OSError."""
        self.limit = limit
        self._length = length
        self._tokenizer = _tokenizer(path)
        self._begin, self._end = self._id(_BEGIN), self._id(_END)
        self._padding = self._id(_padding(path))

    def _id(self, word: str) -> int:
        found: int | None = self._tokenizer.token_to_id(word)
        if found is None:
            raise ValueError(f"the tokenizer has no {word}")
        return found

    def count(self, text: str) -> int:
        """Without padding."""
        return len(self._ids(text)) + 2

    def _ids(self, text: str) -> list[int]:
        """Without what a text may spell that is no word."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [token for token in ids if token not in (self._begin, self._end)]

    def read(self, text: str) -> tuple[list[int], int]:
        """And where the text ends. Raises PromptTooLong."""
        ids = [self._begin, *self._ids(text), self._end]
        if len(ids) > self.limit:
            raise PromptTooLong(prompt_tokens=len(ids), wanted=None, limit=self.limit)
        return ids + [self._padding] * (self._length - len(ids)), len(ids) - 1


def _tokenizer(path: Path) -> Tokenizer:
    vocabulary, merges = path / "vocab.json", path / "merges.txt"
    if not (vocabulary.exists() and merges.exists()):
        return Tokenizer.from_file(str(path / "tokenizer.json"))
    byte_pairs = models.BPE.from_file(
        str(vocabulary), str(merges), unk_token=_END, end_of_word_suffix="</w>"
    )
    made = Tokenizer(byte_pairs)
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return made


def _padding(path: Path) -> str:
    """As transformers finds it: an older file beside the config counts more, unless that is new."""
    config, older = (
        told.config(file) if file.exists() else {}
        for file in (path / "tokenizer_config.json", path / "special_tokens_map.json")
    )
    found = config if "added_tokens_decoder" in config else {**config, **older}
    word = found.get("pad_token", _END)
    return str(word["content"] if isinstance(word, Mapping) else word)
