"""MLX for speech: one thread owns the model, and all recordings take turns on it."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from ..base import Activity, EngineStopped, Loaded, LoadFailed, Progress
from ..media import Hearing, Passage, Recording, Transcriber
from ..worker import Worker
from .fit import Fitting, settled
from .whisper.job import Heard, Job

if TYPE_CHECKING:
    # MLX takes seconds to import: done on the engine's thread, so that HTTP is up meanwhile.
    from .whisper.batcher import Ears
    from .whisper.loading import Facts
    from .whisper.vocabulary import Vocabulary


class MlxTranscriber(Transcriber):
    """See the package."""

    name = "mlx"

    def __init__(self, fitting: Fitting, *, clock: Callable[[], float]) -> None:
        self._fitting = fitting
        self._clock = clock
        self._worker: Worker[Job, Heard] | None = None
        self._vocabulary: Vocabulary | None = None

    async def load(self, path: Path | None, progress: Progress) -> Loaded:
        if path is None:
            raise LoadFailed("ModelSourceNotFound", "no weights were given")
        wish = self._fitting.wish
        fit = settled(await asyncio.to_thread(self._fitting.of, path))
        progress(0, "loading weights")
        self._worker = worker = Worker[Job, Heard]("pippin-engine", self._clock)
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[Facts] = loop.create_future()

        def make() -> Ears:
            from .whisper.batcher import Ears
            from .whisper.loading import load

            model, facts = load(path, wish.args, wish.context)
            loop.call_soon_threadsafe(loaded.set_result, facts)
            return Ears(model)

        await worker.start(make)
        facts = await loaded
        self._vocabulary = facts.vocabulary
        progress(100, "loaded")
        return Loaded(facts.context_length, facts.bytes, facts.details, fit.payload())

    async def warm_up(self) -> None:
        """On a CPU there is nothing to compile, and half a minute takes seconds."""
        if self._fitting.wish.on_cpu:
            return
        async with aclosing(self.transcribe(_silence(), Hearing("en"))) as passages:
            async for _ in passages:
                pass

    async def transcribe(
        self, recording: Recording, hearing: Hearing
    ) -> AsyncGenerator[Passage, None]:
        if self._worker is None or self._vocabulary is None:
            raise EngineStopped("the model is not loaded")
        self._vocabulary.check(hearing.language)
        said = False
        async with aclosing(self._worker.run(Job(recording, hearing))) as answer:
            async for parts in answer:
                for passage in [one for part in parts for one in part.passages]:
                    said = True
                    yield passage
        if not said:
            yield Passage("", 0.0, recording.seconds, (), (), hearing.language or "en")

    def activity(self) -> Activity:
        if self._worker is None:
            return Activity(active=0, batch=0, progressed_at=self._clock())
        return self._worker.activity()

    async def close(self) -> None:
        if self._worker is not None:
            await self._worker.close()


def _silence() -> Recording:
    """A tenth of a second."""
    out, rate = io.BytesIO(), 16_000
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(2 * rate // 10))
    return Recording(out.getvalue(), "wav", 0.1)
