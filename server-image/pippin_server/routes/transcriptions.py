"""POST /v1/audio/transcriptions."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from pippin_edge import multipart
from pippin_edge.errors import BadRequest

from ..answering import Kitchen
from ..engines.media import Recording, Transcriber
from ..media.sounds import Unreadable, sound
from ..openai import transcripts
from ..openai.forms import only_file
from ..transcribing import Dictation, TranscriptAnswer
from .reading import Desk

#: A recording that claims to last longer is not believed, and not worked on.
MOST_SECONDS = 24 * 3600


def router(desk: Desk, kitchen: Kitchen, engine: Transcriber) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/audio/transcriptions")
    async def transcribe(request: Request) -> Response:
        form = await multipart.read(request.scope, request.receive)
        asked = transcripts.read(form)
        desk.check_model(asked.model)
        recording = await asyncio.to_thread(_recording, only_file(form, "file"))
        kitchen.refuse_unless_ready()
        request_id = request.scope["state"]["request_id"]
        return TranscriptAnswer(kitchen, engine, Dictation(asked, recording, request_id))

    return routes


def _recording(content: bytes) -> Recording:
    """Raises BadRequest."""
    try:
        container, seconds = sound(content)
    except Unreadable as error:
        raise BadRequest(f"'file' {error}", param="file", code="invalid_file") from error
    if seconds > MOST_SECONDS:
        raise BadRequest(
            f"'file' lasts {seconds:.0f} seconds: send at most {MOST_SECONDS}",
            param="file",
            code="invalid_file",
        )
    return Recording(content, container, seconds)
