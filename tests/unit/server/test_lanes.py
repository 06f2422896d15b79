"""Requests for a model and its adapters in one batch: each gets what it would get alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy
import pytest
from safetensors.numpy import load_file, save_file

from pippin_server.engines.adapters import describe
from pippin_server.engines.base import LoadFailed, Sampling
from pippin_server.engines.mlx.job import Job
from pippin_server.engines.mlx.lanes import Lanes
from pippin_server.engines.mlx.lora import Part
from support import adapters, tinymodel
from support.adapters import Lora
from support.batches import Batch, a_batch, a_job, answers

ONE, TWO = Lora(seed=1), Lora(seed=2, rank=6, alpha=3, modules=("q_proj", "up_proj"))
#: Of different lengths, one in several pieces; the first two begin alike.
PROMPTS = [list(range(3, 60)), [*range(3, 45), 9, 9, 9], list(range(100, 240)), [7, 8, 9]]


def alone(engine: Batch, adapter: int = 0) -> list[str]:
    """One after another."""
    return [answers(engine, [a_job(prompt, adapter)])[0] for prompt in PROMPTS]


class Served(NamedTuple):
    engine: Batch
    #: By the adapter's number: what models answer that hold its weights in their own.
    truth: dict[int, list[str]]

    @property
    def numbers(self) -> list[int]:
        return list(self.truth)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tinymodel.make(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Served:
    root = tmp_path_factory.mktemp("adapters")
    engine = a_batch(tiny)
    truth = {0: alone(a_batch(tiny))}
    one = engine.batcher.adapt(describe(adapters.peft(root / "one", tiny, ONE)))
    truth[one] = alone(a_batch(adapters.fused(root / "with-one", tiny, ONE)))
    two = engine.batcher.adapt(describe(adapters.mlx(root / "two", tiny, TWO)))
    truth[two] = alone(a_batch(adapters.fused(root / "with-two", tiny, TWO)))
    return Served(engine, truth)


def test_an_adapter_answers_as_a_model_with_its_weights_does(served: Served) -> None:
    for number in served.numbers:
        assert alone(served.engine, number) == served.truth[number]
    one, two = served.numbers[1:]
    assert len({served.truth[n][2] for n in (0, one, two)}) == 3


def test_all_in_one_batch_answer_as_alone(served: Served) -> None:
    asked = [(n, which) for which in range(len(PROMPTS)) for n in served.numbers]
    for order in (asked, asked[::-1], sorted(asked)):
        found = answers(served.engine, [a_job(PROMPTS[which], n) for n, which in order])
        assert found == [served.truth[n][which] for n, which in order]


def test_what_one_has_read_is_not_anothers(served: Served, tiny: Path, tmp_path: Path) -> None:
    engine, prompt = a_batch(tiny), PROMPTS[2]
    first = engine.batcher.adapt(describe(adapters.peft(tmp_path / "a", tiny, ONE)))
    second = engine.batcher.adapt(describe(adapters.peft(tmp_path / "b", tiny, TWO)))
    for number in (0, first, second):
        answers(engine, [a_job(prompt, number)])
        assert engine.cache.hits == 0
    for number in (0, first, second):
        before = engine.cache.hits
        answers(engine, [a_job(prompt, number)])
        assert engine.cache.hits - before >= len(prompt) - 32 - 1


def test_one_that_came_again_reads_again(tiny: Path, tmp_path: Path) -> None:
    engine, prompt = a_batch(tiny), PROMPTS[2]
    directory = adapters.peft(tmp_path / "a", tiny, ONE)
    for _ in range(2):
        number = engine.batcher.adapt(describe(directory))
        answers(engine, [a_job(prompt, number)])
        engine.batcher.forget(number)
    assert engine.cache.hits == 0


def test_nobody_begins_with_what_is_leaving_and_who_has_begun_ends_with_it(
    served: Served, tiny: Path, tmp_path: Path
) -> None:
    engine = a_batch(tiny)
    number = engine.batcher.adapt(describe(adapters.peft(tmp_path / "a", tiny, ONE)))
    other = engine.batcher.adapt(describe(adapters.mlx(tmp_path / "b", tiny, TWO)))
    engine.batcher.add(0, a_job(PROMPTS[0], number))
    engine.batcher.add(1, a_job(PROMPTS[0], other))
    told, begun = {0: "", 1: ""}, False
    while engine.batcher.size:
        for ticket, event in engine.batcher.step():
            assert not isinstance(event, Exception), event
            told[ticket] += event.text
        if told[0] and not begun:
            begun = True
            engine.batcher.forget(number)
            with pytest.raises(Exception, match="unloaded"):
                engine.batcher.add(2, a_job(PROMPTS[0], number))
    truth = list(served.truth.values())
    assert (told[0], told[1]) == (truth[1][0], truth[2][0])


def test_scores_of_a_prompt_are_the_adapters(served: Served) -> None:
    def scores(number: int) -> list[float]:
        sampling = Sampling(max_tokens=0, temperature=0, logprobs=0, echo=True)
        job = Job(PROMPTS[0], 0, sampling, echo="…", adapter=number)
        served.engine.batcher.add(0, job)
        ((_, event),) = served.engine.batcher.step()
        assert not isinstance(event, Exception)
        return [line[0].logprob or 0.0 for line in event.scores]

    plain, one = scores(0), scores(served.numbers[1])
    assert max(abs(a - b) for a, b in zip(plain, one, strict=True)) > 0.1
    assert scores(0) == plain


def test_an_adapter_that_does_not_fit_leaves_all_as_it_was(served: Served, tmp_path: Path) -> None:
    wide = tinymodel.make(tmp_path / "wide", tinymodel.Shape(hidden=96))
    with pytest.raises(LoadFailed, match=r"for 96 x 96, this model has 64 x 64") as refused:
        queries = Lora(modules=("q_proj",))
        served.engine.batcher.adapt(describe(adapters.peft(tmp_path / "a", wide, queries)))
    assert refused.value.reason == "AdapterMismatch"
    assert alone(served.engine, served.numbers[1]) == served.truth[served.numbers[1]]


def _renamed(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("layers.1", "layers.7"): tensor for name, tensor in tensors.items()}


def _halved(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if "lora_A" in name}


def _torn(tensors: dict[str, Any]) -> dict[str, Any]:
    return {n: t[:2] if "layers.0.self_attn.q_proj.lora_A" in n else t for n, t in tensors.items()}


def _embedding(tensors: dict[str, Any]) -> dict[str, Any]:
    return {"base_model.model.model.embed_tokens.lora_embedding_A": next(iter(tensors.values()))}


def _normed(tensors: dict[str, Any]) -> dict[str, Any]:
    old, new = "self_attn.q_proj", "input_layernorm"
    return {name.replace(old, new): tensor for name, tensor in tensors.items()}


def _nan(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: numpy.full_like(tensor, numpy.nan) for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_renamed, "no module model.layers.7.self_attn.q_proj"),
        (_halved, "one of its two matrices is missing"),
        (_torn, "ranks 2 and 4 differ"),
        (_embedding, "lora_embedding_A: no matrix of a LoRA"),
        (_normed, "is a RMSNorm, and linear ones are served"),
        (_nan, "no number"),
    ],
)
def test_weights_that_cannot_be_used_are_named(
    served: Served,
    tiny: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], dict[str, Any]],
    words: str,
) -> None:
    directory = adapters.peft(tmp_path / "a", tiny, Lora(modules=("q_proj",)))
    file = directory / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)
    with pytest.raises(LoadFailed, match=words):
        served.engine.batcher.adapt(describe(directory))


class Two(nn.Module):  # type: ignore[misc]
    """A model of two linear modules, one quantised."""

    def __init__(self) -> None:
        super().__init__()
        mx.random.seed(3)
        self.first = nn.Linear(64, 128, bias=True)
        self.second = nn.QuantizedLinear.from_linear(nn.Linear(128, 32), group_size=32, bits=4)

    def __call__(self, x: mx.array) -> mx.array:
        answer: mx.array = self.second(self.first(x))
        return answer


def test_each_row_looks_into_its_own_lane() -> None:
    model, x = Two(), mx.random.normal((4, 3, 64))
    plain = model(x)
    lanes = Lanes(model, mx.float32)
    some = {
        7: {"first": Part(mx.random.normal((64, 2)), mx.random.normal((2, 128)))},
        9: {"second": Part(mx.random.normal((128, 5)), mx.random.normal((5, 32)))},
    }
    lanes._parts = {number: dict(parts) for number, parts in some.items()}
    lanes._arrange()
    lanes.use([9, 0, 7, 9])
    found = model(x)
    first, second = model.first.plain, model.second.plain
    seven, nine = some[7]["first"], some[9]["second"]
    after_first = first(x)
    wanted = [
        second(after_first[0]) + after_first[0] @ nine.a @ nine.b,
        plain[1],
        second(after_first[2] + x[2] @ seven.a @ seven.b),
        second(after_first[3]) + after_first[3] @ nine.a @ nine.b,
    ]
    assert mx.allclose(found, mx.stack(wanted), atol=1e-4).item()
    assert (found[1] == plain[1]).all().item()
    lanes.use([0, 0, 0, 0])
    assert (model(x) == plain).all().item()
