"""From files to pixels, from pixels to what a language model reads, and the numbers it is known by.

Figures were recorded from Hugging Face's own code for these models (transformers 5.19, torch 2.13,
Pillow 13) with the weights of `tinyvision` and the picture `png(1)`.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy
import pytest
from mlx.utils import tree_flatten
from safetensors.numpy import load_file, save_file

from pippin_contract.serverconfig import PromptCacheConfig
from pippin_edge.errors import BadRequest
from pippin_server.engines.adapters import describe
from pippin_server.engines.base import LoadFailed, Message, Prompt, PromptRefused, Sampling, Shown
from pippin_server.engines.mlx import shape
from pippin_server.engines.mlx.args import Args
from pippin_server.engines.mlx.batcher import MlxBatcher
from pippin_server.engines.mlx.fit import Wish, estimate
from pippin_server.engines.mlx.job import Job
from pippin_server.engines.mlx.model import Model, Tokens, load
from pippin_server.engines.mlx.promptcache import PromptCache
from pippin_server.engines.mlx.vision import KEPT
from pippin_server.engines.mlx.vision.decoding import decoded
from pippin_server.engines.mlx.vision.eyes import Plan
from pippin_server.engines.mlx.vision.gallery import FIRST, Gallery, Look
from pippin_server.engines.mlx.vision.resizing import resized
from pippin_server.engines.mlx.vision.seeing import Seeing
from pippin_server.hardware.budget import Budget
from pippin_server.openai.shown import MAX_BYTES, ImagePart
from support import adapters, pictures, tinymodel, tinyvision
from support.pictures import png


class Figures(NamedTuple):
    """`likeliest`: tokens after the picture and the words, and their logits; `first`, `last`: the
    beginning of what is read in place of the first and of the last token of the picture."""

    likeliest: dict[int, float]
    first: tuple[float, ...]
    last: tuple[float, ...]


SMOLVLM = Figures(
    {327: 2.5982, 282: 2.4205, 387: 2.4151, 419: 2.3452, 464: 1.9948, 434: 1.9458},
    (-0.9344, -0.9070, -1.0703, 0.2703),
    (0.6071, -1.0984, 0.0443, -1.0826),
)
LLAVA = Figures(
    {380: 3.0669, 439: 2.9410, 472: 2.7243, 62: 2.3321, 61: 2.3283, 284: 2.2533},
    (-1.0665, 1.9173, 0.0245, -0.6833),
    (-0.9269, -0.8403, -0.0683, -0.2289),
)
#: Numbers that go into the tower: the red ones of each tile at one place, and one corner.
REDS, CORNER = (0.65490, -0.91373, 0.6, -0.88235, 0.24706), (0.93725, 0.84314, -0.23137)


def shown(content: bytes, width: int = 80, height: int = 48, **more: Any) -> Shown:
    told = {"kind": "png", "orientation": 1, "coarse": False, "where": "there", **more}
    return Shown(content, width=width, height=height, **told)


class Opened(NamedTuple):
    model: Model
    tokens: Tokens
    gallery: Gallery
    seeing: Seeing

    def prompt(self, *parts: str | Shown) -> tuple[list[int], tuple[Look, ...]]:
        eyes = self.model.eyes
        assert eyes is not None
        looks = [self.gallery.look(one, eyes.plan(one)) for one in parts if isinstance(one, Shown)]
        asked = Prompt(messages=(Message("user", "", parts=parts),))
        return self.tokens.encode(asked, looks), tuple(looks)

    def see(self, look: Look, picture: Shown) -> None:
        assert self.model.eyes is not None
        look.tiles = list(self.model.eyes.tiles(decoded(picture), look.plan))
        self.seeing.add(0, look)
        while self.seeing.step() is None:
            pass


def opened(path: Path) -> Opened:
    model, gallery = load(path, Args()), Gallery(KEPT)
    assert model.eyes is not None
    seeing = Seeing(model.weights, model.eyes, gallery, lambda: 0.0)
    return Opened(model, Tokens(model), gallery, seeing)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tinyvision.make(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def eyes(path: Path) -> Opened:
    return opened(path)


@pytest.mark.parametrize(
    ("kind", "digest"),
    [(1, "c2280f074188117a"), (2, "cd179083901f8b5a"), (3, "eeff569d3fc3b458")],
)
def test_pixels_are_resized_as_pillow_does(kind: int, digest: str) -> None:
    made = resized(pictures.pixels(1), 90, 37, kind)
    assert made.shape == (90, 37, 3)
    assert sha256(made.tobytes()).hexdigest().startswith(digest)


@pytest.mark.parametrize(("kind", "off"), [("png", 0), ("jpeg", 12), ("gif", 90)])
def test_files_are_decoded(kind: str, off: int) -> None:
    """GIFs here have 256 colours for everything."""
    pixels = pictures.pixels(2)
    made = decoded(shown(pictures.encoded(pixels, kind), kind=kind))
    assert numpy.abs(made.astype(int) - pixels).max() <= off


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(orientation: int) -> None:
    file = pictures.turned(pictures.encoded(pictures.pixels(2), "jpeg"), orientation)
    part = ImagePart.model_validate(pictures.part(file, "jpeg")).plain("messages.0.content.0")
    plain = decoded(shown(pictures.encoded(pictures.pixels(2), "jpeg"), kind="jpeg"))
    ways = {
        1: plain,
        2: plain[:, ::-1],
        3: plain[::-1, ::-1],
        4: plain[::-1],
        5: plain.transpose(1, 0, 2),
        6: plain.transpose(1, 0, 2)[:, ::-1],
        7: plain.transpose(1, 0, 2)[::-1, ::-1],
        8: plain.transpose(1, 0, 2)[::-1],
    }
    assert (decoded(part) == ways[orientation]).all()
    assert (part.width, part.height) == ((48, 80) if orientation > 4 else (80, 48))


@pytest.mark.parametrize(
    "picture",
    [
        shown(png(1)[:-40]),
        shown(png(1)[:60]),
        shown(b"\x89PNG\r\n\x1a\n"),
        shown(png(1), width=40),
        shown(png(1, 400, 400), width=8, height=8),
        shown(pictures.encoded(pictures.pixels(1), "gif")[:40], kind="gif"),
    ],
)
def test_a_damaged_picture_or_one_that_lies_about_its_size_is_refused(picture: Shown) -> None:
    with pytest.raises(PromptRefused, match="'there' is a damaged") as refused:
        decoded(picture)
    assert refused.value.param == "there"


def test_a_large_file_is_refused_before_it_is_read() -> None:
    part = ImagePart.model_validate(pictures.part(bytes(MAX_BYTES + 3)))
    with pytest.raises(BadRequest, match="larger than 8 MiB") as refused:
        part.plain("messages.2.content.1")
    assert refused.value.param == "messages.2.content.1.image_url.url"


def test_what_goes_into_the_tower_is_what_it_was_trained_with(eyes: Opened) -> None:
    its: Any = eyes.model.eyes
    picture = shown(png(1))
    plan = its.plan(picture)
    tiles = its.tiles(decoded(picture), plan)
    assert (plan.rows, plan.columns, plan.tokens) == (2, 2, 80)
    numbers = [numpy.array(its._levels(tile)) for tile in tiles]
    assert [one[10, 10, 0] for one in numbers] == pytest.approx(REDS, abs=1e-5)
    assert numbers[-1][63, 63].tolist() == pytest.approx(CORNER, abs=1e-5)


@pytest.mark.parametrize("family", ["smolvlm", "llava"])
def test_what_a_model_reads_and_says_is_what_others_compute(family: str, tmp_path: Path) -> None:
    make, figures = {
        "smolvlm": (tinyvision.make, SMOLVLM),
        "llava": (tinyvision.make_llava, LLAVA),
    }[family]
    eyes, picture = opened(make(tmp_path)), shown(png(1))
    tokens, (look,) = eyes.prompt("what", picture, "is this")
    eyes.see(look, picture)
    assert look.vectors[0, :4].tolist() == pytest.approx(figures.first, abs=2e-4)
    assert look.vectors[-1, :4].tolist() == pytest.approx(figures.last, abs=2e-4)
    with eyes.seeing.sight.reading([tokens]):
        logits = numpy.array(eyes.model.weights(mx.array([tokens]))[0, -1])
    found = {int(token): float(logits[token]) for token in numpy.argsort(-logits)[:6]}
    assert found == pytest.approx(figures.likeliest, abs=2e-4)


@pytest.mark.parametrize(
    ("width", "height", "told"),
    [
        (80, 48, {}),
        (48, 80, {}),
        (64, 64, {}),
        (9, 90, {"do_pad": True}),
        (80, 48, {"size": {"height": 40, "width": 60}}),
    ],
)
def test_a_square_is_cut_out_of_any_picture(
    width: int, height: int, told: dict[str, Any], tmp_path: Path
) -> None:
    there = tinyvision.make_llava(tmp_path)
    config = json.loads((there / "preprocessor_config.json").read_text())
    (there / "preprocessor_config.json").write_text(json.dumps({**config, **told}))
    its: Any = opened(there).model.eyes
    plan = its.plan(shown(b"", width, height))
    (tile,) = its.tiles(pictures.pixels(1, width, height), plan)
    assert (plan.tiles, plan.tokens, tile.shape) == (1, 64, (64, 64, 3))


def test_eyes_that_were_left_out_of_the_files_are_missed_by_nobody_who_writes(
    tmp_path: Path,
) -> None:
    """mlx_lm's own conversions hold the words alone."""
    there = tinyvision.make_llava(tmp_path)
    weights = load_file(there / "model.safetensors")
    words = {name: one for name, one in weights.items() if name.startswith("language_model.")}
    save_file(words, there / "model.safetensors", metadata={"format": "mlx"})
    tokens = Tokens(load(there, Args()))
    asked = Prompt(messages=(Message("user", "hello world"),))
    assert "hello world" in tokens.text(asked, tokens.encode(asked))
    with pytest.raises(PromptRefused, match="not in its files"):
        tokens.check_pictures(Prompt(messages=(Message("user", "", parts=(shown(png(1)),)),)))


def test_a_picture_as_others_stretch_it_is_cut_into_as_many_tiles(eyes: Opened) -> None:
    its: Any = eyes.model.eyes
    sizes = {(80, 48): (2, 2), (100, 40): (1, 2), (30, 100): (2, 1), (1, 1): (2, 2)}
    for (width, height), (rows, columns) in sizes.items():
        plan = its.plan(shown(b"", width, height))
        assert (plan.rows, plan.columns) == (rows, columns)
        tiles = its.tiles(pictures.pixels(1, width, height), plan)
        assert [tile.shape for tile in tiles] == [(64, 64, 3)] * plan.tiles
    rough = its.plan(shown(b"", coarse=True))
    assert (rough.tiles, rough.tokens) == (1, 16)
    assert len(its.tiles(pictures.pixels(1), rough)) == 1


def test_other_files_of_the_same_model_are_read_too(path: Path, tmp_path: Path) -> None:
    """As converted for MLX: other names, and filters the other way round."""
    weights = load_file(path / "model.safetensors")
    renamed = {}
    for name, weight in weights.items():
        name = name.removeprefix("model.").replace("text_model.", "language_model.", 1)
        name = name.replace("lm_head", "language_model.lm_head")
        renamed[name] = weight.transpose(0, 2, 3, 1).copy() if weight.ndim == 4 else weight
    there = tinyvision.make(tmp_path / "there")
    save_file(renamed, there / "model.safetensors", metadata={"format": "mlx"})
    settings = json.loads((there / "tokenizer_config.json").read_text())
    beside = {"chat_template": settings.pop("chat_template")}
    (there / "tokenizer_config.json").write_text(json.dumps(settings))
    (there / "chat_template.json").write_text(json.dumps(beside))
    processor = (there / "preprocessor_config.json").rename(there / "processor_config.json")
    processor.write_text(json.dumps({"image_processor": json.loads(processor.read_text())}))
    other = opened(there)
    picture = shown(png(1))
    tokens, (look,) = other.prompt("what", picture, "is this")
    other.see(look, picture)
    assert look.vectors[0, :4].tolist() == pytest.approx(SMOLVLM.first, abs=2e-4)


def test_quantised_models_see_nearly_the_same(path: Path, tmp_path: Path) -> None:
    """Words and eyes in eight bits, as far as their rows can be cut into groups."""
    model = load(path, Args())
    assert model.eyes is not None
    found: dict[str, mx.array] = {}
    for net, beginning in ((model.weights, "language_model."), (model.eyes.net, "")):
        nn.quantize(net, 32, 8, class_predicate=lambda _, one: _can_be_cut(one))
        found |= {beginning + name: one for name, one in tree_flatten(net.parameters())}
    there = tinyvision.make(tmp_path / "there")
    (there / "model.safetensors").unlink()
    mx.save_safetensors(str(there / "model.safetensors"), found)
    config = json.loads((there / "config.json").read_text())
    config["quantization"] = {"group_size": 32, "bits": 8}
    (there / "config.json").write_text(json.dumps(config))
    eyes, picture = opened(there), shown(png(1))
    _, (look,) = eyes.prompt("what", picture)
    eyes.see(look, picture)
    assert look.vectors[0, :4].tolist() == pytest.approx(SMOLVLM.first, abs=0.1)
    assert look.vectors[0, :4].tolist() != pytest.approx(SMOLVLM.first, abs=1e-4)


def _can_be_cut(module: Any) -> bool:
    return isinstance(module, nn.Linear) and module.weight.shape[-1] % 32 == 0


@pytest.mark.parametrize("broken", ["weights", "preprocessor"])
def test_eyes_that_do_not_fit_are_a_corrupted_model(broken: str, tmp_path: Path) -> None:
    there = tinyvision.make(tmp_path)
    if broken == "weights":
        weights = load_file(there / "model.safetensors")
        del weights["model.vision_model.post_layernorm.bias"]
        save_file(weights, there / "model.safetensors", metadata={"format": "pt"})
    else:
        (there / "preprocessor_config.json").unlink()
    with pytest.raises(LoadFailed) as failed:
        load(there, Args())
    assert failed.value.reason == "ModelCorrupted"


def test_the_same_picture_has_the_same_numbers_and_no_other_has_them() -> None:
    gallery, plan = Gallery(1000), Plan(0, 0, 10)
    first, second = (gallery.look(shown(bytes([n])), plan) for n in (1, 2))
    assert first.numbers == range(FIRST, FIRST + 10)
    assert second.numbers == range(FIRST + 10, FIRST + 20)
    assert gallery.look(shown(bytes([1])), plan) is first
    assert gallery.look(shown(bytes([1]), coarse=True), plan).start >= FIRST + 20
    before = first.start
    del first
    gc.collect()
    assert gallery.look(shown(bytes([1])), plan).start == before


def test_what_nobody_holds_goes_and_the_youngest_stay() -> None:
    gallery, plan = Gallery(2 * 4 * 40), Plan(0, 0, 10)
    held = gallery.look(shown(b"held"), plan)
    numbers = {}
    for name in (b"held", b"a", b"b"):
        look = gallery.look(shown(name), plan)
        look.vectors = mx.zeros((10, 8 // 2))
        numbers[name] = look.start
        gallery.keep(look)
    del look
    gc.collect()
    assert gallery.of([held.start, numbers[b"a"] + 9, numbers[b"b"]])
    gallery.clear()
    gc.collect()
    assert gallery.of([held.start]) == [held]
    with pytest.raises(LookupError):
        gallery.of([numbers[b"a"]])


def test_the_oldest_goes_first() -> None:
    gallery, plan = Gallery(2 * 4 * 40), Plan(0, 0, 10)
    for name in (b"a", b"b", b"a", b"c"):
        look = gallery.look(shown(name), plan)
        look.vectors = look.vectors if look.vectors is not None else mx.zeros((10, 4))
        gallery.keep(look)
    del look
    gc.collect()
    assert gallery.look(shown(b"a"), plan).vectors is not None
    assert gallery.look(shown(b"b"), plan).vectors is None


def test_an_adapter_that_was_trained_with_the_pictures_finds_the_words(
    path: Path, tmp_path: Path
) -> None:
    eyes = opened(path)
    batch, picture = a_batch(eyes), shown(png(1))
    number = batch.adapt(
        describe(adapters.peft(tmp_path / "adapter", tinymodel_of(path, tmp_path)))
    )
    tokens, looks = eyes.prompt("what", picture, "is this")
    eyes.see(looks[0], picture)
    sampling = Sampling(temperature=0, max_tokens=8)
    for ticket, adapter in enumerate((0, number)):
        batch.add(ticket, Job(tokens, 8, sampling, adapter=adapter, looks=looks))
    texts = ["", ""]
    while batch.size:
        for ticket, event in batch.step():
            texts[ticket] += event.text
    assert texts[0] != texts[1]


def tinymodel_of(path: Path, there: Path) -> Path:
    """The words' part of a model that sees, under the names that it has there."""
    weights = load_file(path / "model.safetensors")
    words = {name: one for name, one in weights.items() if "text_model" in name}
    (there / "words").mkdir()
    save_file(words, there / "words" / "model.safetensors")
    return there / "words"


def a_batch(eyes: Opened) -> MlxBatcher:
    cache = PromptCache(eyes.model.weights, 2**24)
    limits = {"batch": 4, "prefill_batch": 4, "prefill_step": 64}
    return MlxBatcher(eyes.model.weights, eyes.model.tokenizer, cache, None, eyes.seeing, **limits)


def test_others_get_their_tokens_while_a_picture_is_looked_at(path: Path) -> None:
    """The clock of these tests stands still, so a step of all goes on until the picture is seen;
    one that leaps makes it a layer at a time."""
    model, gallery = load(path, Args()), Gallery(KEPT)
    assert model.eyes is not None
    seconds: Iterator[float] = iter(range(10_000))
    seeing = Seeing(model.weights, model.eyes, gallery, lambda: float(next(seconds)))
    eyes = Opened(model, Tokens(model), gallery, seeing)
    batch, picture = a_batch(eyes), shown(png(5))
    look = gallery.look(picture, model.eyes.plan(picture))
    look.tiles = list(model.eyes.tiles(decoded(picture), look.plan))
    batch.add(1, Job(eyes.prompt("hello")[0], 8, Sampling(temperature=0, max_tokens=8)))
    batch.add(2, look)
    order = []
    while batch.size:
        order += [ticket for ticket, _ in batch.step()]
    assert order.count(1) == 8
    assert order.index(2) > 4
    assert look.vectors is not None and look.tiles is None


def test_a_picture_whose_request_has_gone_is_looked_at_no_more(path: Path) -> None:
    eyes = opened(path)
    batch, picture = a_batch(eyes), shown(png(6))
    assert eyes.model.eyes is not None
    look = eyes.gallery.look(picture, eyes.model.eyes.plan(picture))
    look.tiles = list(eyes.model.eyes.tiles(decoded(picture), look.plan))
    batch.add(1, look)
    batch.add(2, look)
    batch.remove([1])
    events: list[Any] = []
    while batch.size:
        events += batch.step()
    assert [ticket for ticket, _ in events] == [2]
    assert look.vectors is not None


def test_the_estimate_counts_eyes_and_what_pictures_take(path: Path, tmp_path: Path) -> None:
    wish = Wish(None, 4, PromptCacheConfig(enabled=False), Args(), on_cpu=True)
    blind = tinymodel.make(tmp_path)
    found = [shape.read(one, "auto", on_cpu=True) for one in (path, blind)]
    needed = [estimate(one, wish, Budget(2**34, "all")).needed for one in found]
    sees, words = found
    assert sees.weights > words.weights and words.pictures == 0
    assert sees.pictures > KEPT + 2**27
    assert needed[0] - needed[1] >= sees.pictures
    assert sees.context == words.context == 512


def test_a_family_that_is_served_for_text_only_says_why(tmp_path: Path) -> None:
    there = tinymodel.make(tmp_path)
    config = json.loads((there / "config.json").read_text())
    told = {"model_type": "qwen2_vl", "text_config": config, "vision_config": {"depth": 1}}
    weights = load_file(there / "model.safetensors")
    (there / "config.json").write_text(json.dumps(told | {"tie_word_embeddings": False}))
    qwen = {name.replace("model.", "language_model.model."): one for name, one in weights.items()}
    qwen["language_model.lm_head.weight"] = qwen.pop("lm_head.weight")
    for layer in range(2):
        for part, width in (("q", 64), ("k", 32), ("v", 32)):
            name = f"language_model.model.layers.{layer}.self_attn.{part}_proj.bias"
            qwen[name] = numpy.zeros(width, numpy.float32)
    save_file(qwen, there / "model.safetensors", metadata={"format": "pt"})
    model = load(there, Args())
    assert (model.context_length, model.vocabulary) == (512, 512)
    tokens = Tokens(model)
    assert tokens.encode(Prompt(messages=(Message("user", "hello"),)))
    seen = shown(png(1), where="messages.0.content.0.image_url.url")
    with pytest.raises(PromptRefused, match="qwen2_vl are served for text only") as refused:
        tokens.check_pictures(Prompt(messages=(Message("user", "", parts=(seen,)),)))
    assert refused.value.param == seen.where
