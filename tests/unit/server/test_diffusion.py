"""Networks and samplers against diffusers' figures, a prompt's words, files and pixels, turns, and
what becomes of models that are not known."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy
import pytest
from safetensors.numpy import load_file, save_file

from pippin_contract.serverconfig import PromptCacheConfig
from pippin_server.engines.base import (
    EngineStopped,
    LoadFailed,
    OutOfMemory,
    PromptTooLong,
)
from pippin_server.engines.media import Painting
from pippin_server.engines.mlx.args import Args
from pippin_server.engines.mlx.diffusion import layers, unet
from pippin_server.engines.mlx.diffusion.batcher import Hand
from pippin_server.engines.mlx.diffusion.drawing import Drawing, Habits, Model
from pippin_server.engines.mlx.diffusion.job import Job
from pippin_server.engines.mlx.diffusion.loading import load
from pippin_server.engines.mlx.diffusion.schedule import Schedule
from pippin_server.engines.mlx.diffusion.words import Words
from pippin_server.engines.mlx.fit import Fitting, Wish
from pippin_server.engines.mlx.painter import MlxPainter
from pippin_server.hardware.budget import Budget
from support import tinydiffusion
from support.media import picture
from support.tinydiffusion import LOOPS, PROMPT, few, wave

FIGURES = json.loads((Path(tinydiffusion.__file__).parent / "diffusers.json").read_text())
KINDS = ("sd", "xl")


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("painters")
    return {name: tinydiffusion.make(root / name, xl=name == "xl") for name in KINDS}


@pytest.fixture(scope="module")
def models(directories: dict[str, Path]) -> dict[str, Model]:
    return {name: load(path, Args(), None)[0] for name, path in directories.items()}


def nhwc(*shape: int, like: float = 1.0) -> mx.array:
    """A wave as diffusers has it, whose channels come first."""
    rows, high, wide, channels = shape
    return mx.array(wave(rows, channels, high, wide, like=like).transpose(0, 2, 3, 1))


def last(steps: Iterator[Any]) -> Any:
    *_, found = steps
    return found


def is_as_recorded(kind: str, name: str, ours: mx.array) -> None:
    numbers = numpy.array(ours)
    found = few(numbers.transpose(0, 3, 1, 2) if numbers.ndim == 4 else numbers)
    assert found == pytest.approx(FIGURES[kind][name], rel=1e-3, abs=1e-3)


def a_wish(prompt: str = PROMPT, seed: int = 1, **more: Any) -> Job:
    told = {"width": 64, "height": 64, **more}
    return Job(Painting(prompt, told.pop("width"), told.pop("height"), seed, **told), seed)


def painted(model: Model, job: Job) -> Any:
    return last(Drawing(model, job).steps())


def quickly(model: Model, **told: Any) -> Model:
    habits = dataclasses.replace(model.habits, steps=2, guidance=3.0, **told)
    return dataclasses.replace(model, habits=habits)


@pytest.mark.parametrize("kind", KINDS)
def test_every_network_computes_what_diffusers_does(models: dict[str, Model], kind: str) -> None:
    model, told = models[kind], Drawing(models[kind], a_wish())._context()
    is_as_recorded(kind, "tokens", told.tokens[1:])
    xl = kind == "xl"
    text = mx.array(wave(2, tinydiffusion.POSITIONS, 32 if xl else 16))
    context = unet.Context(text)
    if told.whole is not None:
        is_as_recorded(kind, "whole", told.whole[1:])
        context = unet.Context(text, mx.array(wave(2, 16)), (64, 48, 0, 0, 64, 48))
    assert (told.whole is not None) == xl
    is_as_recorded(kind, "unet", last(model.unet.steps(nhwc(2, 7, 9, 4), 601.0, context)))
    is_as_recorded(kind, "decoded", last(model.vae.decode(nhwc(1, 8, 8, 4))))
    is_as_recorded(kind, "encoded", last(model.vae.encode(nhwc(1, 64, 64, 3))))


def the_loop(
    model: Model, monkeypatch: pytest.MonkeyPatch, picture: mx.array | None, mask: Any, renew: Any
) -> mx.array:
    """Latents, from waves for noise."""
    monkeypatch.setattr(mx.random, "normal", lambda shape, key: nhwc(*shape, like=next(renew)))
    drawing = Drawing(model, a_wish())
    steps = drawing._steps(picture is not None, masked=mask is not None)

    def all_steps() -> Iterator[Any]:
        found = yield from drawing._painted(steps, drawing._context(), picture, mask)
        yield found / steps.exit

    return last(all_steps())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LOOPS)
def test_every_sampler_goes_the_way_that_diffusers_goes(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    told = LOOPS[name]
    model = dataclasses.replace(
        models[kind],
        schedule=Schedule.of({**tinydiffusion.SCHEDULER, **told.scheduler}),
        habits=Habits(told.steps, told.guidance, (0.8, 1.0)),
    )
    noises = iter([1.3, *(count / 9 for count in range(1, 9))])
    is_as_recorded(kind, name, the_loop(model, monkeypatch, None, None, noises))


@pytest.mark.parametrize("name", ["changed", "inpainted"])
def test_a_picture_is_changed_as_diffusers_changes_it(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model = dataclasses.replace(models["sd"], habits=Habits(6, 7.5, (0.8, 1.0)))
    mask = numpy.full((64, 64), 255, dtype=numpy.uint8)
    mask[:, 32:] = 0
    found = the_loop(
        model,
        monkeypatch,
        nhwc(1, 8, 8, 4, like=0.7),
        mask if name == "inpainted" else None,
        iter([1.3] * 9),
    )
    is_as_recorded("sd", name, found)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"_class_name": "LCMScheduler"}, "_class_name 'LCMScheduler'"),
        ({"prediction_type": "sample"}, "prediction_type 'sample'"),
        ({"beta_schedule": "squaredcos_cap_v2"}, "only linear and scaled_linear"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas True is not known here, only False"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ({"_class_name": "DDIMScheduler"}, "clip_sample True"),
    ],
)
def test_a_schedule_that_is_not_known_is_named(told: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Schedule.of({**tinydiffusion.SCHEDULER, **told})


def test_models_that_need_few_steps_are_known_by_their_schedule() -> None:
    def habits(args: Args, **told: Any) -> Habits:
        return Habits.of(args, Schedule.of({**tinydiffusion.SCHEDULER, **told}), xl=False)

    assert (habits(Args()).steps, habits(Args()).guidance) == (50, 7.5)
    hurried = {"timestep_spacing": "trailing"}
    assert (habits(Args(), **hurried).steps, habits(Args(), **hurried).guidance) == (4, 0)
    assert habits(Args(), **hurried, prediction_type="v_prediction").steps == 50
    told = Args(steps=7, guidance=2.0, strength=0.5)
    assert habits(told, **hurried) == Habits(7, 2.0, (0.5, 0.5))


def test_a_picture_goes_through_a_step_however_few_there_are(models: dict[str, Model]) -> None:
    model = dataclasses.replace(models["sd"], habits=Habits(1, 0.0, (0.3, 1.0)))
    drawing = Drawing(model, a_wish())
    assert len(drawing._steps(True, masked=False).times) == 1
    assert len(drawing._steps(True, masked=True).times) == 1


def test_words_are_those_of_transformers(directories: dict[str, Path]) -> None:
    from transformers import CLIPTokenizer

    path = directories["sd"] / "tokenizer"
    theirs = CLIPTokenizer.from_pretrained(path)
    ours = Words(path, tinydiffusion.POSITIONS, tinydiffusion.POSITIONS)
    for text in ("", PROMPT, "THE  cat's\n fox: 12!", "Ünïcode 世界 and 🦊"):
        told = theirs(text, padding="max_length", truncation=True)["input_ids"]
        ids, end = ours.read(text) if ours.count(text) <= 24 else (told, 23)
        assert ids == told, text
        assert ids[end] == theirs.eos_token_id
    assert ours.count("<|endoftext|>") > 3
    with pytest.raises(PromptTooLong, match="the context of this model is 24 tokens"):
        ours.read("x" * 40)


@pytest.mark.parametrize("new", [False, True])
def test_what_fills_a_prompt_up_is_what_transformers_takes(
    directories: dict[str, Path], tmp_path: Path, new: bool
) -> None:
    """SD 2.x says it in two files, and not the same."""
    from transformers import CLIPTokenizer

    path = shutil.copytree(directories["sd"] / "tokenizer", tmp_path / "tokenizer")
    (path / "special_tokens_map.json").write_text('{"pad_token": "!</w>"}')
    if new:
        marks = {"521": {"content": "<|endoftext|>", "special": True}}
        tinydiffusion.change(path, "tokenizer_config.json", added_tokens_decoder=marks)
    theirs = CLIPTokenizer.from_pretrained(path)("a", padding="max_length")["input_ids"]
    assert Words(path, 24, 24).read("a")[0] == theirs
    assert theirs[-1] == (521 if new else 256)


def test_a_tokenizer_in_one_file_is_read_too(directories: dict[str, Path], tmp_path: Path) -> None:
    path = directories["xl"] / "tokenizer_2"
    ours = Words(path, 24, 24)
    ours._tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": {"content": "!</w>"}}')
    alone = Words(tmp_path, 24, 12)
    end = ours.read(PROMPT[:9])[1]
    assert alone.read(PROMPT[:9])[0][:end] == ours.read(PROMPT[:9])[0][:end]
    assert alone.read("")[0][2:] == [256] * 22
    with pytest.raises(PromptTooLong, match="is 12 tokens"):
        alone.read("x" * 11)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_is_the_same_picture(models: dict[str, Model], kind: str) -> None:
    model = quickly(models[kind])
    first = painted(model, a_wish())
    assert first.shape == (64, 64, 3)
    assert numpy.array_equal(first, painted(model, a_wish()))
    assert not numpy.array_equal(first, painted(model, a_wish(seed=2)))
    assert not numpy.array_equal(first, painted(model, a_wish("a fox")))
    wide = painted(model, a_wish(width=144, height=80))  # latents halve to a fraction
    assert wide.shape == (80, 144, 3)


def test_what_the_mask_keeps_is_kept_to_the_pixel(models: dict[str, Model]) -> None:
    model = quickly(models["sd"])
    before = numpy.random.default_rng(1).integers(0, 255, (64, 64, 4), dtype=numpy.uint8)
    before[..., 3] = 255
    mask = before.copy()
    mask[10:50, 20:, 3] = 0
    source = picture(before)
    made = painted(model, a_wish(sources=(source,), mask=picture(mask)))
    kept = mask[..., 3] == 255
    assert numpy.array_equal(made[kept], before[kept][:, :3])
    assert not numpy.array_equal(made[~kept], before[~kept][:, :3])
    free = painted(model, a_wish(sources=(source,)))
    assert not numpy.array_equal(free[kept], before[kept][:, :3])


def test_a_weaker_change_leaves_more_of_a_picture(models: dict[str, Model]) -> None:
    source = picture(numpy.full((64, 64, 3), 128, dtype=numpy.uint8))
    wish = a_wish(sources=(source,))
    steps = [
        sum(1 for _ in Drawing(quickly(models["sd"], strength=(share, 1.0)), wish).steps())
        for share in (0.5, 1.0)
    ]
    assert steps[0] < steps[1]


async def test_a_gpu_is_warmed_up_by_one_step(
    directories: dict[str, Path], models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    taken = Schedule.steps

    def counted(schedule: Schedule, count: int) -> Any:
        counts.append(count)
        return taken(schedule, count)

    monkeypatch.setattr(Schedule, "steps", counted)
    for on_cpu in (True, False):
        wish = Wish(None, 1, PromptCacheConfig(enabled=False), Args(), on_cpu=on_cpu, whole=True)
        painter = MlxPainter(Fitting(wish, Budget(0, "x")), clock=time.monotonic)
        with pytest.raises(EngineStopped):
            await painter.paint(a_wish().painting)
        loaded = await painter.load(directories["sd"], lambda *_: None)
        assert (loaded.context_length, loaded.details["steps"]) == (24, "50")
        assert painter.activity().alive
        await painter.warm_up()
        await painter.close()
    assert counts == [1]


def test_a_large_picture_is_computed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, x = layers.Conv(4, 6), nhwc(2, 21, 5, 4)
    asked = mx.random.normal((2, 3, 50, 8), key=mx.random.key(1))
    whole = conv(x), layers.attend(asked, asked, asked, 0.3)
    monkeypatch.setattr(layers, "_CONVOLUTION", 9 * 2 * 5 * 4 * 4)
    monkeypatch.setattr(layers, "_ATTENTION", 2 * 3 * 50 * 7)
    pieces = conv(x), layers.attend(asked, asked, asked, 0.3)
    for one, other in zip(whole, pieces, strict=True):
        assert mx.allclose(one, other, atol=1e-5)


def turns(hand: Hand, until: Callable[[], bool]) -> list[Any]:
    events: list[Any] = []
    while not until():
        events += hand.step()
    return events


def test_pictures_are_made_in_turn_and_those_who_leave_are_gone(models: dict[str, Model]) -> None:
    hand = Hand(quickly(models["sd"]))
    for ticket, job in enumerate((a_wish(), a_wish("x" * 40), a_wish(seed=3), a_wish(seed=4))):
        hand.add(ticket, job)
    assert hand.step() == ()
    hand.remove([2])
    events = turns(hand, lambda: not hand.size)
    assert [ticket for ticket, _ in events] == [0, 1, 3]
    assert isinstance(events[1][1], PromptTooLong)
    assert events[0][1].pixels.shape == events[2][1].pixels.shape == (64, 64, 3)


def test_memory_that_runs_out_is_said_and_the_next_has_its_turn(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = Hand(quickly(models["sd"]))
    hand.add(1, a_wish())
    hand.add(2, a_wish())

    def full(*_: Any) -> Any:
        raise RuntimeError("[malloc] Unable to allocate 9 bytes.")

    with monkeypatch.context() as patch:
        patch.setattr(unet.UNet, "steps", full)
        with pytest.raises(OutOfMemory):
            turns(hand, lambda: False)
    assert hand.reset() == [1]
    assert [ticket for ticket, _ in turns(hand, lambda: not hand.size)] == [2]


@pytest.mark.parametrize(
    ("part", "fields", "said"),
    [
        ("model_index.json", {"_class_name": "FluxPipeline"}, "a FluxPipeline is not known here"),
        ("unet/config.json", {"in_channels": 9}, "out_channels 4 is not known here, only 9"),
        ("unet/config.json", {"time_cond_proj_dim": 256}, "time_cond_proj_dim 256"),
        ("unet/config.json", {"down_block_types": ["KDownBlock2D"] * 2}, "KDownBlock2D"),
        ("unet/config.json", {"cross_attention_dim": 20}, "unet: .*shape"),
        ("unet/config.json", {"sample_size": None}, "sample_size is missing"),
        ("vae/config.json", {"latents_mean": [1]}, "latents_mean"),
        ("text_encoder/config.json", {"hidden_act": "relu"}, "hidden_act 'relu'"),
        ("tokenizer/tokenizer_config.json", {"pad_token": "[PAD]"}, "has no \\[PAD\\]"),
        ("scheduler/scheduler_config.json", {"prediction_type": "x"}, "prediction_type 'x'"),
    ],
)
def test_what_is_not_known_of_a_model_is_named(
    tmp_path: Path, part: str, fields: dict[str, Any], said: str
) -> None:
    path = tinydiffusion.make(tmp_path / "other")
    tinydiffusion.change(path, part, **fields)
    with pytest.raises(LoadFailed, match=said) as caught:
        load(path, Args(), None)
    assert caught.value.reason == "ModelCorrupted"


def test_a_prompt_is_no_longer_than_the_model_reads(directories: dict[str, Path]) -> None:
    _, facts = load(directories["sd"], Args(), 10)
    assert facts.words.limit == 10
    with pytest.raises(LoadFailed, match="contextLength 25"):
        load(directories["sd"], Args(), 25)


def test_weights_of_diffusers_first_years_are_read(
    directories: dict[str, Path], models: dict[str, Model], tmp_path: Path
) -> None:
    path = tinydiffusion.make(tmp_path / "old")
    file = path / "vae/diffusion_pytorch_model.safetensors"
    renamed = {
        name.replace(".to_q.", ".query.")
        .replace(".to_k.", ".key.")
        .replace(".to_v.", ".value.")
        .replace(".to_out.0.", ".proj_attn."): tensor
        for name, tensor in load_file(file).items()
    }
    assert renamed.keys() != load_file(file).keys()
    save_file(renamed, file)
    made = painted(quickly(load(path, Args(), None)[0]), a_wish())
    assert numpy.array_equal(made, painted(quickly(models["sd"]), a_wish()))


def test_attention_in_32_bits_is_the_same_where_all_is(
    models: dict[str, Model], tmp_path: Path
) -> None:
    path = tinydiffusion.make(tmp_path / "wide")
    tinydiffusion.change(path, "unet/config.json", upcast_attention=True)
    made = painted(quickly(load(path, Args(), None)[0]), a_wish())
    assert numpy.array_equal(made, painted(quickly(models["sd"]), a_wish()))
    half = quickly(load(path, Args(dtype="float16"), None)[0])
    assert half.unet.mid_block.attentions[0].transformer_blocks[0].attn1.wide
    assert painted(half, a_wish()).shape == (64, 64, 3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_as_wide_numbers_make_a_picture_that_is_alike(
    models: dict[str, Model], directories: dict[str, Path], dtype: Any
) -> None:
    model, facts = load(directories["sd"], Args(dtype=dtype), None)
    assert facts.details["dtype"].endswith(dtype)
    assert model.vae.post_quant_conv.weight.dtype == mx.float32
    ours, theirs = (painted(quickly(one), a_wish()).astype(int) for one in (model, models["sd"]))
    assert numpy.abs(ours - theirs).mean() < 12
