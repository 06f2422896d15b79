"""How much of a memory each of several models gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pippin_contract.serverconfig import PromptCacheConfig
from pippin_server.engines.base import LoadFailed
from pippin_server.engines.mlx.args import Args
from pippin_server.engines.mlx.fit import PROGRAM, Fit, Fitting, Wish, estimate, share
from pippin_server.engines.mlx.shape import Shape
from pippin_server.hardware.budget import Budget

GIB = 2**30
OFF = PromptCacheConfig(enabled=False)
CONTAINER = "the limit of this container is"
#: As Llama 3.1 with 8 billion weights of 4 bits.
BIG = Shape(
    weights=4 * GIB, quantised=True, width=2, full=32 * 2 * 8 * 128, window=0, reach=0, heads=32,
    hidden=4096, inner=14336, context=131072,
)  # fmt: skip


class _Known(Fitting):
    """Of a shape, instead of files."""

    def of(self, path: Path) -> Fit:
        return estimate(BIG, self.wish, self.budget)


@pytest.mark.parametrize(
    ("memory", "models", "taken"),
    [
        (48, 3, 16),  # an equal share is enough
        (24, 1, 24),  # nobody else is to have any
        (14, 3, 6.3),  # a third is too little for 8192 tokens, and an eighth more is not
        (5.4, 3, 5.4),  # all of it, for less
    ],
)
def test_models_that_share_a_memory_get_equal_parts_of_it_or_what_they_need(
    memory: float, models: int, taken: float
) -> None:
    whole = int(memory * GIB)
    wish = Wish(None, 8, OFF, Args(), on_cpu=False)
    held, limit = share(_Known(wish, Budget(whole, CONTAINER)), Path(), models)
    assert held + PROGRAM <= limit <= whole
    assert held / GIB == pytest.approx(taken, abs=0.4)


def test_a_model_that_does_not_fit_into_all_of_a_shared_memory_is_refused() -> None:
    wish = Wish(None, 8, OFF, Args(), on_cpu=False)
    with pytest.raises(LoadFailed, match="What helps"):
        share(_Known(wish, Budget(4 * GIB, CONTAINER)), Path(), 3)
    # Tried all the same, where that is wished: with all there is.
    lenient = replace(wish, strict=False)
    held, limit = share(_Known(lenient, Budget(4 * GIB, CONTAINER)), Path(), 3)
    assert (held, limit) == (4 * GIB - PROGRAM, 4 * GIB)


def test_a_shared_memory_that_nobody_knows_bounds_nothing() -> None:
    wish = Wish(None, 8, OFF, Args(), on_cpu=False)
    assert share(_Known(wish, Budget(0, "nobody says")), Path(), 3) == (0, 0)
