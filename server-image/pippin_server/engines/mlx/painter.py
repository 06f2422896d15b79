"""MLX for pictures: one thread owns the model, and pictures are made one after the other."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from ..base import Activity, EngineStopped, Loaded, LoadFailed, Progress, PromptRefused
from ..media import Canvas, Painter, Painting
from ..worker import Worker
from .diffusion.job import Job, Painted, Pixels
from .diffusion.room import Room
from .fit import PROGRAM, Fit, Fitting, settled

if TYPE_CHECKING:
    # MLX takes seconds to import: done on the engine's thread, so that HTTP is up meanwhile.
    from .diffusion.batcher import Hand
    from .diffusion.loading import Facts
    from .diffusion.words import Words

_SEED_BITS = 32


class MlxPainter(Painter):
    """See the package. `draw`: a random number of so many bits."""

    name = "mlx"

    def __init__(
        self,
        fitting: Fitting,
        *,
        clock: Callable[[], float],
        draw: Callable[[int], int] = secrets.randbits,
    ) -> None:
        self._fitting = fitting
        self._clock = clock
        self._draw = draw
        self._worker: Worker[Job, Painted] | None = None
        self._words: Words | None = None
        self._most = 0

    async def load(self, path: Path | None, progress: Progress) -> Loaded:
        if path is None:
            raise LoadFailed("ModelSourceNotFound", "no weights were given")
        wish = self._fitting.wish
        fit = settled(await asyncio.to_thread(self._fitting.of, path))
        self._measure(await asyncio.to_thread(Room.of, path), fit)
        progress(0, "loading weights")
        self._worker = worker = Worker[Job, Painted]("pippin-engine", self._clock)
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[Facts] = loop.create_future()

        def make() -> Hand:
            from .diffusion.batcher import Hand
            from .diffusion.loading import load

            model, facts = load(path, wish.args, wish.context)
            loop.call_soon_threadsafe(loaded.set_result, facts)
            return Hand(model)

        await worker.start(make)
        facts = await loaded
        self._words = facts.words
        progress(100, "loaded")
        return Loaded(facts.words.limit, facts.bytes, facts.details, fit.payload())

    def _measure(self, room: Room, fit: Fit) -> None:
        side = room.side
        self.canvas = Canvas((side, side), side**2)
        left = fit.budget.bytes - PROGRAM - fit.weights
        self._most = room.most(left if fit.budget.bytes else None)

    async def warm_up(self) -> None:
        """On a CPU there is nothing to compile, and a step takes a minute."""
        if not self._fitting.wish.on_cpu:
            empty = Painting("", *self.canvas.natural, seed=0)
            await _painted(self._loaded(), Job(empty, 0, steps=1))

    async def paint(self, painting: Painting) -> bytes:
        worker = self._loaded()
        self._check(painting)
        seed = self._draw(_SEED_BITS) if painting.seed is None else painting.seed + painting.index
        pixels = await _painted(worker, Job(painting, seed))
        from .diffusion.pixels import file

        return await asyncio.to_thread(file, pixels)

    def _loaded(self) -> Worker[Job, Painted]:
        if self._worker is None:
            raise EngineStopped("the model is not loaded")
        return self._worker

    def _check(self, painting: Painting) -> None:
        """Raises PromptRefused."""
        wide, high = painting.width, painting.height
        if wide * high > self._most:
            raise PromptRefused(
                f"'size' {wide}x{high} is {wide * high} pixels, and this model makes up to"
                f" {self._most} here, best {'x'.join(map(str, self.canvas.natural))}",
                "size",
            )
        if len(painting.sources) > 1:
            raise PromptRefused("'image': this model changes one picture: send one", "image")

    def tokens(self, text: str) -> int:
        if self._words is None:
            raise EngineStopped("the model is not loaded")
        return self._words.count(text)

    def activity(self) -> Activity:
        if self._worker is None:
            return Activity(active=0, batch=0, progressed_at=self._clock())
        return self._worker.activity()

    async def close(self) -> None:
        if self._worker is not None:
            await self._worker.close()


async def _painted(worker: Worker[Job, Painted], job: Job) -> Pixels:
    """Left early, it goes no step further."""
    async with aclosing(worker.run(job)) as answer:
        (painted,) = await anext(answer)
    return painted.pixels
