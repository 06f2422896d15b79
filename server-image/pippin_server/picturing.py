"""From a checked wish to its pictures: a slot, the engine's files, one answer."""

from __future__ import annotations

from dataclasses import dataclass

from pippin_edge.asgi import Receive, Scope, Send
from pippin_edge.errors import NotReady

from .answering import Kitchen, RunByServer, body, note_usage, start
from .caller import Caller
from .engines.base import EngineError, Prompt
from .engines.media import Painter
from .openai.images import Files, Used, Wish, encoded, tokens, whole
from .shelf import Shelf
from .troubles import as_api_error


@dataclass(frozen=True, slots=True)
class Commission:
    """What is to be painted, checked. `size`: width and height; `below`: the URL of pictures that
    are fetched; None: they come in the answer."""

    wish: Wish
    files: Files
    size: tuple[int, int]
    below: str | None
    request_id: str


class PictureAnswer(RunByServer):
    """Made of an engine's files."""

    def __init__(
        self, kitchen: Kitchen, engine: Painter, shelf: Shelf, commission: Commission
    ) -> None:
        super().__init__(kitchen)
        self.engine = engine
        self.shelf = shelf
        self.commission = commission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kitchen, told = self.kitchen, self.commission
        async with Caller(scope) as caller, kitchen.place(scope):
            painted = await self._painted()
            used = Used(
                text=self.engine.tokens(told.wish.prompt),
                files=told.files.tokens,
                made=len(painted) * tokens(*told.size),
            )
            note_usage(scope, kitchen.telemetry, used.read, used.made)
            data = [self._shown(picture) for picture in painted]
            created = int(kitchen.clock.wall())
            content = whole(created, told.size, data, used, told.request_id)
            caller.answered()
            await send(start(b"application/json", len(content), used=(used.read, used.made)))
            await send(body(content, more=False))

    async def _painted(self) -> list[bytes]:
        """One after the other: each is all that an engine can do at a time."""
        told = self.commission
        paintings = [
            told.wish.painting(index, told.size, told.files) for index in range(told.wish.n or 1)
        ]
        try:
            return [await self.engine.paint(painting) for painting in paintings]
        except EngineError as error:
            raise as_api_error(error, (Prompt(),)) from error

    def _shown(self, picture: bytes) -> dict[str, str]:
        if self.commission.below is None:
            return encoded(picture)
        try:
            return {"url": self.commission.below + self.shelf.put(picture)}
        except OSError as error:
            raise NotReady(
                "this server has no room for files now: ask for 'response_format' b64_json",
                retry_after=30,
            ) from error
