"""From a checked recording to its transcript: a slot, the engine's passages, a stream or one
answer.

The first passage, or the first error, comes before the status line.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import orjson
import structlog

from pippin_edge import errors, sse
from pippin_edge.asgi import Receive, Scope, Send, state

from .answering import Kitchen, RunByServer, body, note_usage, start
from .caller import Caller
from .engines.base import EngineError, Prompt
from .engines.media import Passage, Recording, Transcriber
from .openai.transcripts import TranscriptionRequest, Used, delta, done, text, whole
from .troubles import as_api_error

log = structlog.get_logger("pippin.server")


@dataclass(frozen=True, slots=True)
class Dictation:
    """What is to be written down, checked."""

    asked: TranscriptionRequest
    recording: Recording
    request_id: str


class TranscriptAnswer(RunByServer):
    """Made of an engine's passages."""

    def __init__(self, kitchen: Kitchen, engine: Transcriber, dictation: Dictation) -> None:
        super().__init__(kitchen)
        self.engine = engine
        self.dictation = dictation
        self._passages: list[Passage] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kitchen, told = self.kitchen, self.dictation
        async with Caller(scope) as caller, kitchen.place(scope):
            state(scope).setdefault("log", {})["audio_s"] = round(told.recording.seconds, 3)
            coming = self.engine.transcribe(told.recording, told.asked.hearing())
            async with aclosing(coming):
                try:
                    self._passages.append(await anext(coming))
                    if told.asked.stream:
                        await self._stream(coming, caller, send)
                    else:
                        await self._whole(coming, caller, send)
                except EngineError as error:
                    raise as_api_error(error, (Prompt(),)) from error
                finally:
                    if self._passages:
                        used = self._used()
                        note_usage(scope, kitchen.telemetry, used.heard, used.written)

    def _used(self) -> Used:
        written = sum(len(passage.tokens) for passage in self._passages)
        return Used(self.dictation.recording.seconds, written)

    async def _whole(
        self, coming: AsyncGenerator[Passage, None], caller: Caller, send: Send
    ) -> None:
        told = self.dictation
        self._passages += [passage async for passage in coming]
        kind, content = whole(told.asked, self._passages, told.recording.seconds, told.request_id)
        used = self._used()
        caller.answered()
        await send(start(kind, len(content), used=(used.heard, used.written)))
        await send(body(content, more=False))

    async def _stream(
        self, coming: AsyncGenerator[Passage, None], caller: Caller, send: Send
    ) -> None:
        await send(start(sse.CONTENT_TYPE))
        pending = delta(self._passages[0], first=True)
        try:
            async for passage in coming:
                await send(body(pending, more=True))
                self._passages.append(passage)
                pending = delta(passage, first=False)
        except Exception as error:
            last = sse.event(orjson.dumps(self._late(error)))
        else:
            last = done(text(self._passages), self._used(), self.dictation.request_id)
        caller.answered()
        await send(body(pending + last, more=False))

    def _late(self, error: Exception) -> dict[str, object]:
        """The payload of the last event; a bug's text is only in the log."""
        request_id = self.dictation.request_id
        if isinstance(error, EngineError):
            told = as_api_error(error, (Prompt(),))
            log.warning("answer.broken", request_id=request_id, code=told.code)
        else:
            log.exception("answer.failed", request_id=request_id)
            told = errors.Internal("something went wrong here; try again, and report the id")
        return errors.payload(told, request_id)
