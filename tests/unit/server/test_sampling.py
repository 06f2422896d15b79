"""Tokens are drawn as often as they should be, whatever cuts apply, each row by its own rules."""

from __future__ import annotations

import math
import random
import sys

import mlx.core as mx
import pytest

from pippin_server.engines.base import Sampling
from pippin_server.engines.mlx.sampling import Row, RowSampler

LOGITS = [2.0, 1.0, 0.0, -1.0, 1.5, -30.0, -math.inf, 0.5]
ROWS, STEPS = 500, 40


def shares(sampling: Sampling, logits: list[float] = LOGITS) -> list[float]:
    """How often each token is drawn."""
    sampler = RowSampler()
    rows = [Row(sampling) for _ in range(ROWS)]
    batch = mx.array([logits] * ROWS)
    counts = [0] * len(logits)
    for _ in range(STEPS):
        drawn: list[int] = sampler(batch, rows).tolist()  # type: ignore[assignment]
        for token in drawn:
            counts[token] += 1
    return [count / (ROWS * STEPS) for count in counts]


def expected(logits: list[float], temperature: float, keep: set[int]) -> list[float]:
    weights = [
        math.exp(logit / temperature) if n in keep else 0.0 for n, logit in enumerate(logits)
    ]
    return [weight / sum(weights) for weight in weights]


ALL = set(range(len(LOGITS)))


@pytest.mark.parametrize(
    ("sampling", "keep"),
    [
        (Sampling(temperature=1.0), ALL),
        (Sampling(temperature=0.5), ALL),
        (Sampling(temperature=2.0), ALL),
        (Sampling(temperature=1.0, top_k=3), {0, 1, 4}),
        (Sampling(temperature=1.5, top_k=2), {0, 4}),
        (Sampling(temperature=1.0, top_k=100), ALL),
        # Shares at 1.0: 0.44, 0.27, 0.16, 0.10, 0.06, 0.02
        (Sampling(temperature=1.0, top_p=0.5), {0, 4}),
        (Sampling(temperature=1.0, top_p=0.8), {0, 4, 1}),
        (Sampling(temperature=1.0, top_p=0.0), {0}),
        (Sampling(temperature=1.0, min_p=0.3), {0, 1, 4}),
        (Sampling(temperature=1.0, min_p=1.0), {0}),
        (Sampling(temperature=1.0, top_k=3, top_p=0.6), {0, 4}),
        (Sampling(temperature=1.0, top_p=0.9, min_p=0.3), {0, 1, 4}),
    ],
)
def test_tokens_come_by_their_shares(sampling: Sampling, keep: set[int]) -> None:
    found = shares(sampling)
    for share, wanted in zip(found, expected(LOGITS, sampling.temperature, keep), strict=True):
        # Five standard deviations of so many draws.
        assert abs(share - wanted) <= 5 * math.sqrt(wanted * (1 - wanted) / (ROWS * STEPS)) + 1e-9


def test_a_flat_vocabulary_is_drawn_to_its_ends() -> None:
    found = shares(Sampling(temperature=1.0), [0.0] * 4)
    assert all(abs(share - 0.25) < 0.02 for share in found)


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 1025, 2051, 8000])
def test_a_token_is_found_wherever_it_is_in_a_vocabulary(size: int) -> None:
    places = [place for place in (0, 1, 62, 63, 64, 1024, size // 2, size - 1) if place < size]
    logits = mx.full((len(places), size), -40.0)
    for row, place in enumerate(places):
        logits[row, place] = 3.0
    rows = [Row(Sampling(temperature=1.0)) for _ in places]
    assert RowSampler()(logits, rows).tolist() == places


def test_all_of_a_large_vocabulary_is_drawn_evenly() -> None:
    size = 3000
    found = shares(Sampling(temperature=1.0), [0.5] * size)
    tenths = [sum(found[at : at + size // 10]) for at in range(0, size, size // 10)]
    assert all(abs(share - 0.1) < 5 * math.sqrt(0.09 / (ROWS * STEPS)) for share in tenths)


@pytest.mark.parametrize("number", [0.0, 0.5, 1 - 2**-53])
def test_what_may_not_come_does_not_whatever_is_drawn(number: float) -> None:
    class Fixed(random.Random):
        def random(self) -> float:
            return number

    logits = mx.array([[-math.inf] * 70 + [1.0, 1.0] + [-math.inf] * 70])
    row = Row(Sampling(temperature=5.0))
    row.random = Fixed()
    assert RowSampler()(logits, [row]).tolist() == [70 if number < 0.5 else 71]


def test_a_seed_gives_the_same_tokens_in_any_company() -> None:
    logits = mx.random.normal((4, 1000))

    def tokens(rows: list[Row], row: int, batch: mx.array) -> list[int]:
        sampler = RowSampler()
        found = []
        for _ in range(20):
            drawn: list[int] = sampler(batch, rows).tolist()  # type: ignore[assignment]
            found.append(drawn[row])
        return found

    hot = Sampling(temperature=1.0, seed=5)
    alone = tokens([Row(hot)], 0, logits[2:3])
    company = [Row(Sampling(temperature=0)), Row(Sampling()), Row(hot), Row(Sampling(top_k=4))]
    assert tokens(company, 2, logits) == alone
    assert tokens([Row(Sampling(temperature=1.0, seed=6))], 0, logits[2:3]) != alone


def test_a_greedy_row_takes_the_likeliest_beside_any_other() -> None:
    logits = mx.random.normal((2, 1000))
    rows = [Row(Sampling(temperature=0)), Row(Sampling(temperature=2.0))]
    sampler = RowSampler()
    likeliest = mx.argmax(logits[0]).item()
    assert all(sampler(logits, rows)[0].item() == likeliest for _ in range(20))


def test_half_precision_is_drawn_from_as_well() -> None:
    logits = mx.array([[0.0, 20.0, 0.0]], dtype=mx.bfloat16)
    assert RowSampler()(logits, [Row(Sampling())]).tolist() == [1]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MLX brings its own fast products")
def test_products_are_right_after_they_were_redirected() -> None:
    from pippin_server.engines.mlx import blas

    before = mx.random.normal((33, 65)), mx.random.normal((65, 17))
    plain = before[0] @ before[1]
    mx.eval(plain)
    assert blas.accelerate(1).threads == 1
    assert mx.allclose(before[0] @ before[1], plain, atol=1e-4).item()
