"""The last step: the official client, a key out of its Secret, an answer as it comes."""

from __future__ import annotations

import base64
import time

import openai
from cluster.controlplane import ControlPlane

from .story import Failed, Story

QUESTION = "Write a haiku about the sea."
_WORDS_AT_MOST = 96
_SECONDS = 180.0


def read_key(plane: ControlPlane, name: str) -> str:
    """The key of an APIKey, from the Secret that its owner reads."""
    secret = plane.api.get(f"/api/v1/namespaces/default/secrets/{name}-apikey")
    return base64.b64decode(secret["data"]["api-key"]).decode()


def stream(url: str, key: str, model: str, story: Story) -> None:
    """Print an answer token by token, then how fast it came. Raises openai.OpenAIError."""
    story.say(f"{url}, model {model}: {QUESTION}")
    begun, first, chunks = time.monotonic(), 0.0, 0
    with openai.OpenAI(base_url=url, api_key=key, timeout=_SECONDS) as client:
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=_WORDS_AT_MOST,
            temperature=0,
            stream=True,
        )
        print("\n    > ", end="")
        for chunk in answer:
            text = chunk.choices[0].delta.content if chunk.choices else None
            if text:
                first = first or time.monotonic()
                chunks += 1
                print(text.replace("\n", "\n    > "), end="", flush=True)
        print("\n", flush=True)
    if not chunks:
        raise Failed("the answer was empty")
    rate = (chunks - 1) / max(time.monotonic() - first, 1e-6)
    story.say(f"first words after {first - begun:.2f} s, then {rate:.0f} pieces a second")
