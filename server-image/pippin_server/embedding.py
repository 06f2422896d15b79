"""From a checked request for embeddings to its bytes: a slot, the engine's vectors, one answer."""

from __future__ import annotations

from dataclasses import dataclass

from pippin_edge.asgi import Receive, Scope, Send, state
from pippin_edge.errors import BadRequest

from .answering import Kitchen, RunByServer, body, start
from .caller import Caller
from .engines.base import Embedded, Embedder, EngineError, Input, InputTooLong, Prompt
from .openai.embeddings import EmbeddingRequest, Form, whole
from .troubles import as_api_error


@dataclass(frozen=True, slots=True)
class Texts:
    """What is to be embedded, checked, and how the answer is to look."""

    asked: EmbeddingRequest
    inputs: list[Input]
    form: Form


class EmbeddingAnswer(RunByServer):
    """Made of an engine's vectors."""

    def __init__(self, kitchen: Kitchen, engine: Embedder, texts: Texts) -> None:
        super().__init__(kitchen)
        self.engine = engine
        self.texts = texts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        telemetry = self.kitchen.telemetry
        async with Caller(scope) as caller, self.kitchen.place(scope):
            embedded = await self._embedded()
            telemetry.prompt_tokens.inc(embedded.tokens)
            line = state(scope).setdefault("log", {})
            line["prompt_tokens"], line["inputs"] = embedded.tokens, len(self.texts.inputs)
            content = whole(self.texts.form, embedded)
            caller.answered()
            await send(start(b"application/json", len(content)))
            await send(body(content, more=False))

    async def _embedded(self) -> Embedded:
        try:
            return await self.engine.embed(self.texts.inputs)
        except InputTooLong as error:
            where = self.texts.asked.where(error.index)
            raise BadRequest(
                f"'{where}' {error}", param=where, code="context_length_exceeded"
            ) from error
        except EngineError as error:
            raise as_api_error(error, (Prompt(),)) from error


def check_dimensions(wanted: int | None, engine: Embedder) -> None:
    """Raises BadRequest."""
    if wanted is not None and wanted > engine.dimensions:
        raise BadRequest(
            f"'dimensions' is {wanted}, and this model's vectors have {engine.dimensions}: "
            "ask for as many or less",
            param="dimensions",
        )
