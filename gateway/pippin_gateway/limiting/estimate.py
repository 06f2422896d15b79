"""How many tokens a request will take, learned from those before it. Pure."""

from __future__ import annotations

import re
from collections import deque
from typing import Any

#: Tokens in a byte of a request until something else was measured; and how fast that is learned.
DENSITY, LEARNING = 0.25, 0.1
#: Completion tokens of an answer until something else was measured.
COMPLETION = 256
#: How many answers are remembered, and after how many they are looked at again.
REMEMBERED, EVERY = 128, 16
#: Models that are remembered; all are forgotten when there are more.
MAX_MODELS = 10_000

#: The tokens of a picture or a sound do not go by its bytes.
_MEDIA = re.compile(rb";base64,[A-Za-z0-9+/=]+")
_MAY_HOLD_MEDIA = 4096


class Estimator:
    """By model (namespace/name)."""

    def __init__(self) -> None:
        self._learned: dict[str, _Learned] = {}

    def tokens(self, model: str, asked: dict[str, Any], body: bytes) -> int:
        """Prompt and completion together, at least 1."""
        prompt = self.prompt(model, body)
        if "input" in asked:  # embeddings answer with no tokens
            return prompt
        learned = self._learned.get(model)
        completion = learned.completion if learned else COMPLETION
        most = asked.get("max_completion_tokens") or asked.get("max_tokens")
        if isinstance(most, int) and 0 < most < completion:
            completion = most
        return prompt + completion * _choices(asked)

    def prompt(self, model: str, body: bytes) -> int:
        """The prompt alone."""
        learned = self._learned.get(model)
        return int(_text_bytes(body) * (learned.density if learned else DENSITY)) + 1

    def learn(
        self, model: str, asked: dict[str, Any], body: bytes, prompt: int, completion: int
    ) -> None:
        """What a replica counted for a request."""
        learned = self._learned.get(model)
        if learned is None:
            if len(self._learned) >= MAX_MODELS:
                self._learned.clear()
            learned = self._learned[model] = _Learned()
        size = _text_bytes(body)
        if prompt and size:
            learned.density += LEARNING * (prompt / size - learned.density)
        if "input" not in asked:
            learned.answered(completion // _choices(asked))


class _Learned:
    """Of one model."""

    __slots__ = ("_answers", "_new", "completion", "density")

    def __init__(self) -> None:
        self.density = DENSITY
        #: As many completion tokens as 95 of 100 answers do not exceed.
        self.completion = COMPLETION
        self._answers: deque[int] = deque(maxlen=REMEMBERED)
        self._new = 0

    def answered(self, completion: int) -> None:
        answers = self._answers
        answers.append(completion)
        self._new += 1
        if self._new == EVERY:
            self._new = 0
            self.completion = max(1, sorted(answers)[int(len(answers) * 0.95)])


def _choices(asked: dict[str, Any]) -> int:
    """Answers that are asked for; what makes no sense the replica refuses."""
    choices, prompts = asked.get("n"), asked.get("prompt")
    count = choices if isinstance(choices, int) and choices > 1 else 1
    # A list of numbers is the tokens of one prompt.
    if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int):
        count *= len(prompts)
    return count


def _text_bytes(body: bytes) -> int:
    size = len(body)
    if size > _MAY_HOLD_MEDIA and b";base64," in body:
        size -= sum(len(found) for found in _MEDIA.findall(body))
    return size
