"""POST /v1/audio/transcriptions: what is asked, and its answer in five forms and as a stream."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import orjson
from pydantic import Field

from pippin_edge import sse
from pippin_edge.errors import BadRequest
from pippin_edge.multipart import Form

from ..engines.media import Hearing, Passage
from . import forms

Format = Literal["json", "text", "verbose_json", "srt", "vtt"]
#: Of one second of sound, as OpenAI counts them.
TOKENS_PER_SECOND = 10
_PLAIN = b"text/plain; charset=utf-8"
_KINDS = {"text": _PLAIN, "srt": _PLAIN, "vtt": b"text/vtt; charset=utf-8"}


class TranscriptionRequest(forms.FormBody):
    """What stands beside the file."""

    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {
        "chunking_strategy": ("auto",),
        "include": (),
        "keywords": (),
        "known_speaker_names": (),
        "known_speaker_references": (),
        "languages": (),
    }
    LISTS: ClassVar[frozenset[str]] = frozenset({"timestamp_granularities", "include"})
    FILES: ClassVar[frozenset[str]] = frozenset({"file"})

    model: str = Field(min_length=1, max_length=512)
    language: str | None = Field(default=None, pattern=r"^[a-z]{2,3}$")
    prompt: str = ""
    response_format: Format = "json"
    temperature: float = Field(default=0, ge=0, le=1)
    timestamp_granularities: list[Literal["word", "segment"]] = Field(default=[], max_length=2)
    stream: bool = False

    def hearing(self) -> Hearing:
        words = "word" in self.timestamp_granularities
        return Hearing(self.language, self.prompt, self.temperature, words)


def read(form: Form) -> TranscriptionRequest:
    """Raises BadRequest naming the field."""
    asked = forms.read(TranscriptionRequest, form)
    if asked.stream and asked.response_format not in ("json", "text"):
        raise BadRequest(
            f"'stream' goes with 'response_format' json or text, not {asked.response_format}",
            param="stream",
        )
    if asked.timestamp_granularities and asked.response_format != "verbose_json":
        raise BadRequest(
            "'timestamp_granularities' goes with 'response_format' verbose_json",
            param="timestamp_granularities",
        )
    return asked


@dataclass(frozen=True, slots=True)
class Used:
    """Tokens: of the sound and the prompt, and of what was written down."""

    seconds: float
    written: int

    @property
    def heard(self) -> int:
        return math.ceil(self.seconds * TOKENS_PER_SECOND)


def text(passages: list[Passage]) -> str:
    return "".join([passage.text for passage in passages]).strip()


def whole(
    asked: TranscriptionRequest, passages: list[Passage], seconds: float, request_id: str
) -> tuple[bytes, bytes]:
    """Content type and body."""
    said = [passage for passage in passages if passage.text]
    match asked.response_format:
        case "text":
            content = text(passages) + "\n"
        case "srt":
            content = _srt(said)
        case "vtt":
            content = _vtt(said)
        case "verbose_json":
            return _json(_verbose(asked, passages, seconds), seconds, request_id)
        case _:
            return _json({"text": text(passages)}, seconds, request_id)
    return _KINDS[asked.response_format], content.encode()


def _json(answer: dict[str, Any], seconds: float, request_id: str) -> tuple[bytes, bytes]:
    usage = {"type": "duration", "seconds": math.ceil(seconds)}
    content = {**answer, "usage": usage, "request_id": request_id}
    return b"application/json", orjson.dumps(content)


def _verbose(
    asked: TranscriptionRequest, passages: list[Passage], seconds: float
) -> dict[str, Any]:
    granular = asked.timestamp_granularities or ["segment"]
    found: dict[str, Any] = {
        "task": "transcribe",
        "language": passages[0].language,
        "duration": round(seconds, 3),
        "text": text(passages),
    }
    if "segment" in granular:
        found["segments"] = [_segment(i, one) for i, one in enumerate(passages) if one.text]
    if "word" in granular:
        found["words"] = [
            {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}
            for passage in passages
            for word in passage.words
        ]
    return found


def _segment(index: int, passage: Passage) -> dict[str, Any]:
    raw = passage.text.encode()
    return {
        "id": index,
        "seek": round(passage.start * 100),  # in frames of 10 ms
        "start": round(passage.start, 3),
        "end": round(passage.end, 3),
        "text": passage.text,
        "tokens": passage.tokens,
        "temperature": passage.temperature,
        "avg_logprob": passage.avg_logprob,
        "compression_ratio": round(len(raw) / len(zlib.compress(raw)), 4),
        "no_speech_prob": passage.no_speech_prob,
    }


def _srt(passages: list[Passage]) -> str:
    return "".join(
        f"{number}\n{_clock(one.start, ',')} --> {_clock(one.end, ',')}\n{one.text.strip()}\n\n"
        for number, one in enumerate(passages, start=1)
    )


def _vtt(passages: list[Passage]) -> str:
    cues = (
        f"{_clock(one.start, '.')} --> {_clock(one.end, '.')}\n{_cue(one.text)}\n\n"
        for one in passages
    )
    return "WEBVTT\n\n" + "".join(cues)


def _cue(told: str) -> str:
    """WebVTT reads markup: what was said is none."""
    return told.strip().replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(seconds: float, point: str) -> str:
    """01:02:03,456"""
    minutes, rest = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def delta(passage: Passage, *, first: bool) -> bytes:
    """One event of a stream."""
    said = passage.text.lstrip() if first else passage.text
    return sse.event(orjson.dumps({"type": "transcript.text.delta", "delta": said}))


def done(told: str, used: Used, request_id: str) -> bytes:
    """The last events of a stream that is complete."""
    usage = {
        "type": "tokens",
        "input_tokens": used.heard,
        "input_token_details": {"audio_tokens": used.heard, "text_tokens": 0},
        "output_tokens": used.written,
        "total_tokens": used.heard + used.written,
    }
    last = {"type": "transcript.text.done", "text": told, "usage": usage, "request_id": request_id}
    return sse.event(orjson.dumps(last)) + sse.DONE
