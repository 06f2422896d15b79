"""MLX for embeddings: one thread owns the model, one more turns texts into tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from pippin_contract.serverconfig import Batching

from ..base import Activity, Embedded, Embedder, EngineStopped, Input, Loaded, LoadFailed, Progress
from ..batching import Batches
from .fit import Fitting, settled, usable

if TYPE_CHECKING:
    # MLX takes seconds to import: done on the engine's thread, so that HTTP is up meanwhile.
    from .sentences import Sentences
    from .texts import Texts


class MlxEmbedder(Embedder):
    """See the package. `context_length` None: what the model's files say."""

    name = "mlx"

    def __init__(
        self,
        batching: Batching,
        fitting: Fitting,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._args = fitting.wish.args
        self._fitting = fitting
        self._batches = Batches(batching, clock=clock, tell=lambda texts: self.batched(texts))
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="pippin-tokens")
        self._texts: Texts | None = None

    async def load(self, path: Path | None, progress: Progress) -> Loaded:
        if path is None:
            raise LoadFailed("ModelSourceNotFound", "no weights were given")
        fit = settled(await asyncio.to_thread(self._fitting.of, path))
        wanted = self._fitting.wish.context
        progress(0, "loading weights")

        def make() -> tuple[Sentences, Texts]:
            from .sentences import load
            from .texts import Texts

            model = load(path, self._args)
            limit = usable(wanted, model.context_length)
            return model, Texts(path, limit=limit, vocabulary=model.vocabulary)

        model, self._texts = await self._batches.on_thread(make)
        self._batches.start(model.embed)
        self.dimensions = model.dimensions
        progress(100, "loaded")
        return Loaded(
            context_length=usable(wanted, model.context_length),
            bytes=model.bytes,
            details={**model.details, "dimensions": str(model.dimensions)},
            memory=fit.payload(),
        )

    async def warm_up(self) -> None:
        await self.embed(["Hello, how are you today?"])

    async def embed(self, inputs: Sequence[Input]) -> Embedded:
        if self._texts is None:
            raise EngineStopped("the model is not loaded")
        loop = asyncio.get_running_loop()
        tokens = loop.run_in_executor(self._tokenizing, self._texts.encode, inputs)
        vectors = await self._batches.run(tokens)
        return Embedded(vectors, sum(map(len, tokens.result())))

    def activity(self) -> Activity:
        return self._batches.activity()

    async def close(self) -> None:
        await self._batches.close()
        self._texts = None
        self._tokenizing.shutdown(wait=False, cancel_futures=True)
