"""MLX's vectors are those of transformers, whoever shares the batch.

The numbers were made with transformers' AutoModel and torch, of the same random weights: the mean,
the first and the last token of `last_hidden_state`, divided by its length.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from safetensors.numpy import load_file, save_file

from pippin_contract.serverconfig import Batching, PromptCacheConfig
from pippin_server.engines.base import LoadFailed, PromptRefused
from pippin_server.engines.mlx import encoder, pooling, sentences
from pippin_server.engines.mlx.args import Args
from pippin_server.engines.mlx.embedder import MlxEmbedder
from pippin_server.engines.mlx.fit import Fitting, Wish
from pippin_server.engines.mlx.texts import Texts
from pippin_server.hardware.budget import Budget
from support import tinymodel
from support.tinyencoder import CLS, MEAN, dump, make, pooled

SHORT = [5, 17, 99, 3]
LONG = [42] * 3 + list(range(3, 30))
REFERENCE = [
    ("bert", "mean", SHORT, [-0.115742, -0.146280, 0.008302, 0.033378]),
    ("bert", "mean", LONG, [-0.154757, -0.269562, 0.030121, -0.018857]),
    ("bert", "cls", LONG, [-0.120014, -0.161430, 0.107437, 0.000778]),
    ("xlm-roberta", "mean", SHORT, [0.063830, 0.052152, -0.004612, 0.041849]),
    ("xlm-roberta", "cls", LONG, [-0.024264, 0.090851, 0.060601, 0.059247]),
    ("llama", "last", SHORT, [0.163658, -0.092464, 0.144335, 0.011242]),
    ("llama", "last", LONG, [-0.061379, -0.010587, -0.061084, -0.156132]),
    ("llama", "mean", LONG, [-0.000522, 0.075078, 0.062507, 0.071707]),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, sentences.Sentences]:
    place = tmp_path_factory.mktemp("models")
    for kind in ("bert", "xlm-roberta"):
        make(place / kind, kind)
    tinymodel.make(place / "llama")
    return {path.name: sentences.load(path, Args()) for path in place.iterdir()}


@pytest.mark.parametrize(("model", "kind", "text", "expected"), REFERENCE)
def test_vectors_agree_with_the_reference_alone_and_in_company(
    models: dict[str, sentences.Sentences],
    model: str,
    kind: pooling.Kind,
    text: list[int],
    expected: list[float],
) -> None:
    found = replace(models[model], pooling=pooling.Pooling(kind, normalize=True))
    (alone,) = found.embed([text])
    _, among, _ = found.embed([[7] * 35, text, [1]])
    assert alone[:4].tolist() == pytest.approx(expected, abs=2e-6)
    assert among.tolist() == pytest.approx(alone.tolist(), abs=1e-6)
    assert math.hypot(*alone) == pytest.approx(1, abs=1e-6)


def test_the_first_positions_of_roberta_are_not_for_texts(
    models: dict[str, sentences.Sentences],
) -> None:
    assert {name: found.context_length for name, found in models.items()} == {
        "bert": 40,
        "xlm-roberta": 38,
        "llama": 512,
    }


def test_the_length_that_a_model_was_taught_is_its_context(tmp_path: Path) -> None:
    dump(make(tmp_path) / "sentence_bert_config.json", {"max_seq_length": 32})
    assert sentences.load(tmp_path, Args()).context_length == 32


async def test_a_context_beyond_the_model_s_own_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    wish = Wish(41, 1, PromptCacheConfig(enabled=False), Args(), on_cpu=True, stateless=True)
    fitting = Fitting(wish, Budget(0, "nobody says"))
    engine = MlxEmbedder(Batching(), fitting, clock=time.monotonic)
    with pytest.raises(LoadFailed, match="41 is more than the model's own 40") as refused:
        await engine.load(tmp_path, lambda percent, message: None)
    assert refused.value.reason == "ContextTooLong"
    await engine.close()


def test_a_decoder_without_a_prefix_or_a_head_is_loaded(tmp_path: Path) -> None:
    tinymodel.make(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (whole,) = sentences.load(tmp_path, Args()).embed([SHORT])
    bare = {
        name.removeprefix("model."): value
        for name, value in weights.items()
        if "lm_head" not in name
    }
    save_file(bare, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (headless,) = sentences.load(tmp_path, Args()).embed([SHORT])
    assert headless == whole


@pytest.mark.parametrize("field", [{"is_causal": False}, {"use_bidirectional_attention": True}])
def test_a_decoder_that_sees_ahead_is_refused_and_not_embedded_wrongly(
    tmp_path: Path, field: dict[str, Any]
) -> None:
    config = json.loads((tinymodel.make(tmp_path) / "config.json").read_text())
    dump(tmp_path / "config.json", {**config, **field})
    with pytest.raises(LoadFailed, match="see those after them"):
        sentences.load(tmp_path, Args())


def test_quantised_weights_are_read(tmp_path: Path) -> None:
    config = json.loads((make(tmp_path) / "config.json").read_text())
    (plain,) = sentences.load(tmp_path, Args()).embed([LONG])
    model = encoder.load(tmp_path, config)
    nn.quantize(model, 64, 8)
    flat: Any = tree_flatten(model.parameters())
    mx.save_safetensors(str(tmp_path / "model.safetensors"), dict(flat))
    dump(tmp_path / "config.json", {**config, "quantization": {"group_size": 64, "bits": 8}})
    (near,) = sentences.load(tmp_path, Args()).embed([LONG])
    assert near != plain
    assert sum(a * b for a, b in zip(near, plain, strict=True)) > 0.99


@pytest.mark.parametrize(
    ("config", "normalize", "kind"),
    [
        (MEAN, True, "mean"),
        (CLS, False, "cls"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, True, "last"),
        ({"pooling_mode": "lasttoken"}, True, "last"),
    ],
)
def test_pooling_is_as_sentence_transformers_files_say(
    tmp_path: Path, config: dict[str, Any], normalize: bool, kind: str
) -> None:
    found = pooling.read(pooled(tmp_path, config, normalize=normalize), "mean")
    assert (found.kind, found.normalize) == (kind, normalize)


def test_without_those_files_it_is_the_default_at_length_1(tmp_path: Path) -> None:
    assert pooling.read(tmp_path, "last") == pooling.Pooling("last", normalize=True)


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
        {"pooling_mode": "weightedmean"},
        {},
    ],
)
def test_a_pooling_that_is_not_known_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(LoadFailed, match="pooling by") as refused:
        pooling.read(pooled(tmp_path, config, normalize=True), "mean")
    assert refused.value.permanent


def test_a_further_layer_is_refused_and_not_left_out(tmp_path: Path) -> None:
    pooled(tmp_path, MEAN, normalize=True)
    dump(tmp_path / "modules.json", [{"type": "sentence_transformers.models.Dense", "path": "2"}])
    with pytest.raises(LoadFailed, match="Dense"):
        pooling.read(tmp_path, "mean")


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_act": "swish"},
        {"position_embedding_type": "relative_key"},
        {"num_hidden_layers": 3},
        {"intermediate_size": 64},
        {"model_type": "no-such-model"},
        {"num_attention_heads": None},
    ],
)
def test_weights_that_do_not_fit_their_config_are_refused(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    make(tmp_path, **{"model_type": "bert", **config})
    with pytest.raises(LoadFailed) as refused:
        sentences.load(tmp_path, Args())
    assert refused.value.reason == "ModelCorrupted"


def test_a_tokenizer_never_cuts_a_text_off(tmp_path: Path) -> None:
    tinymodel.make(tmp_path)
    kept = json.loads((tmp_path / "tokenizer.json").read_text())
    short = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    dump(tmp_path / "tokenizer.json", {**kept, "truncation": short})
    found = Texts(tmp_path, limit=50, vocabulary=512)
    words, ids = found.encode(["the model server batch token cache", (5, 6)])
    assert len(words) > 2
    assert list(ids) == [5, 6]
    with pytest.raises(PromptRefused, match=r"token 512 of text 1 .* vocabulary of 512"):
        found.encode([(1,), (512,)])


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(LoadFailed, match="tokenizer.json"):
        Texts(tmp_path, limit=50, vocabulary=512)
