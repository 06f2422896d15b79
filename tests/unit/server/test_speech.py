"""From samples to bands, from tokens to passages and times, and what becomes of damaged files."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from safetensors.numpy import load_file, save_file

from pippin_contract.serverconfig import PromptCacheConfig
from pippin_server.engines.base import LoadFailed, OutOfMemory, PromptRefused
from pippin_server.engines.media import Hearing, Passage, Recording
from pippin_server.engines.mlx import exponentials
from pippin_server.engines.mlx.args import Args
from pippin_server.engines.mlx.fit import Fitting, Wish
from pippin_server.engines.mlx.whisper import net, seeking
from pippin_server.engines.mlx.whisper.batcher import Ears
from pippin_server.engines.mlx.whisper.job import Heard, Job
from pippin_server.engines.mlx.whisper.listening import Listening
from pippin_server.engines.mlx.whisper.loading import load
from pippin_server.engines.mlx.whisper.mel import HERTZ, log_mel
from pippin_server.engines.mlx.whisper.model import Model
from pippin_server.engines.mlx.whisper.rules import Rules, choose
from pippin_server.engines.mlx.whisper.seeking import STEP, Piece
from pippin_server.engines.mlx.whisper.sound import Sound
from pippin_server.hardware.budget import Budget
from pippin_server.media.sounds import sound
from support import speech, tinywhisper
from support.media import RECORDINGS

#: The token of a window's beginning, and one 100 steps, which are 2 seconds, after it.
T, WINDOW = 1000, 30 * HERTZ


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(tinywhisper.make(tmp_path_factory.mktemp("tiny")), Args(), None)[0]


def a_recording(content: bytes) -> Recording:
    return Recording(content, *sound(content))


def a_tone(seconds: float) -> Recording:
    return a_recording(speech.wav(speech.tone(seconds)))


CASES: list[tuple[str, list[int], list[tuple[int, int, list[int]]], int]] = [
    ("all of it was said", [T, 1, 2, T + 100], [(0, 100, [T, 1, 2, T + 100])], 1500),
    (
        "two passages and nothing behind",
        [T, 1, T + 50, T + 60, 2, T + 100],
        [(0, 50, [T, 1, T + 50]), (60, 100, [T + 60, 2, T + 100])],
        1500,
    ),
    ("what was cut off is heard again", [T, 1, T + 50, T + 50, 2], [(0, 50, [T, 1, T + 50])], 50),
    (
        "a closed end is where to go on",
        [T, 1, T + 50, T + 70, 2, T + 90, T + 90],
        [(0, 50, [T, 1, T + 50]), (70, 90, [T + 70, 2, T + 90])],
        90,
    ),
    ("no end: until the window's", [T + 10, 1, 2], [(0, 10, [T + 10, 1, 2])], 1500),
    ("no times but the beginning", [T, 1, 2], [(0, 1500, [T, 1, 2])], 1500),
]


@pytest.mark.parametrize(("name", "tokens", "pieces", "further"), CASES, ids=lambda v: str(v)[:30])
def test_times_tell_passages_and_where_to_go_on(
    name: str, tokens: list[int], pieces: list[tuple[int, int, list[int]]], further: int
) -> None:
    wanted = [Piece(start * STEP, end * STEP, tuple(of)) for start, end, of in pieces]
    assert seeking.read(tokens, T, WINDOW) == (wanted, further * STEP), name


@given(st.lists(st.integers(T - 20, T + 1500), min_size=1, max_size=40), st.integers(1, WINDOW))
def test_whatever_is_said_the_next_window_comes_later_and_no_sound_is_jumped_over(
    tokens: list[int], length: int
) -> None:
    pieces, further = seeking.read(tokens, T, length)
    assert 0 < further <= max(length, STEP)
    assert all(0 <= piece.end <= length for piece in pieces)


RULES = Rules(end=20, times=30, never=(3, *range(21, 30)), never_first=(4, 20), latest_first=5)


def allowed(said: Sequence[int], **likely: float) -> set[int]:
    logits = numpy.zeros(60, dtype=numpy.float32)
    logits[30:] = likely.get("times", -9)
    RULES.apply(logits, said)
    return {token for token in range(60) if logits[token] > -numpy.inf}


def test_a_transcript_begins_with_a_time_that_is_not_late() -> None:
    assert allowed([]) == set(range(30, 36))


def test_times_come_in_pairs_and_do_not_go_back() -> None:
    words = set(range(21)) - {3}
    assert allowed([32]) == words
    assert allowed([32, 5]) == words | set(range(33, 60))
    assert allowed([32, 5, 40]) == {20} | set(range(40, 60))
    assert allowed([32, 5, 40, 40]) == words
    assert allowed([32, 5, 40, 45, 6]) == words | set(range(46, 60))


def test_times_that_are_likelier_together_than_any_word_are_taken() -> None:
    assert allowed([32, 5], times=-4) == set(range(21)) - {3} | set(range(33, 60))
    assert allowed([32, 5], times=-2) == set(range(33, 60))


def test_a_choice_is_the_likeliest_or_drawn_by_its_share() -> None:
    logits = numpy.log(numpy.array([0.7, 0.2, 0.1], dtype=numpy.float32))
    numbers = numpy.random.default_rng(1)
    assert choose(logits, 0, numbers) == 0
    drawn = [choose(logits, 1, numbers) for _ in range(2000)]
    assert [drawn.count(token) / 2000 for token in range(3)] == pytest.approx(
        [0.7, 0.2, 0.1], abs=0.05
    )


@pytest.mark.parametrize("bands", [80, 128])
def test_bands_are_those_that_models_were_trained_with(bands: int) -> None:
    from transformers import WhisperFeatureExtractor

    samples = speech.samples(speech.HOSPITAL).astype(numpy.float32) / 32768
    theirs = WhisperFeatureExtractor(feature_size=bands)(samples, sampling_rate=HERTZ)
    found = log_mel(samples, WINDOW, bands)
    assert found.shape == (3000, bands)
    assert numpy.abs(found - theirs.input_features[0].T).max() < 1e-3


@pytest.mark.parametrize("codec", speech.CODECS)
def test_a_recording_is_the_same_whatever_it_was_sent_as(codec: str) -> None:
    heard = Sound(a_recording(speech.encoded(speech.tone(2), codec))).window(0, WINDOW)
    assert len(heard) == pytest.approx(2 * HERTZ, abs=HERTZ // 10)
    strengths = numpy.abs(numpy.fft.rfft(heard[8000:24000]))
    assert strengths.argmax() == 440
    assert numpy.abs(heard[8000:24000]).max() == pytest.approx(0.305, abs=0.05)


@pytest.mark.parametrize("path", sorted(RECORDINGS.iterdir()), ids=lambda path: path.name)
def test_what_other_encoders_made_is_heard(path: Path) -> None:
    heard = Sound(a_recording(path.read_bytes())).window(0, WINDOW)
    assert len(heard) == pytest.approx(2.5 * HERTZ, abs=HERTZ // 8)


def test_windows_follow_each_other_without_a_gap() -> None:
    ramp = numpy.arange(5 * HERTZ, dtype=numpy.int16) % 20_000
    heard, at, found = Sound(a_recording(speech.wav(ramp))), 0, []
    steps = random.Random(3)
    while len(window := heard.window(at, HERTZ)):
        further = steps.randint(1, len(window))
        found.append(window[:further])
        at += further
    assert numpy.array_equal(numpy.round(numpy.concatenate(found) * 32768), ramp)
    assert len(heard.window(at, HERTZ)) == 0


def test_no_more_is_decoded_than_the_header_promised() -> None:
    content = speech.encoded(speech.silence(60), "flac")
    heard = Sound(Recording(content, "flac", 1.5))
    assert len(heard.window(0, WINDOW)) == 1.5 * HERTZ


@pytest.mark.parametrize("codec", speech.CODECS)
def test_a_recording_of_rubbish_is_refused_by_its_name(codec: str) -> None:
    content = bytearray(speech.encoded(speech.tone(2), codec))
    numbers = random.Random(5)
    for at in range(len(content) if codec == "m4a" else 4, len(content)):
        content[at] = numbers.randrange(256)
    container = {"opus": "ogg"}.get(codec, codec)
    content = content[: len(content) // 2] if codec == "m4a" else content
    with pytest.raises(PromptRefused, match=f"damaged {container}") as refused:
        Sound(Recording(bytes(content), container, 2)).window(0, WINDOW)
    assert refused.value.param == "file"


def test_a_recording_that_was_hit_in_the_middle_is_heard_around_it() -> None:
    content = bytearray(speech.encoded(speech.tone(3), "mp3"))
    half = len(content) // 2
    content[half : half + 400] = b"\x55" * 400
    heard = Sound(Recording(bytes(content), "mp3", 3)).window(0, WINDOW)
    assert 2 * HERTZ < len(heard) <= 3 * HERTZ


def passages(model: Model, recording: Recording, hearing: Hearing) -> list[Passage]:
    steps = Listening(model, recording, hearing).steps()
    return [passage for step in steps for passage in step or ()]


def test_passages_follow_each_other_within_the_recording(model: Model) -> None:
    found = passages(model, a_tone(2.3), Hearing("en", prompt="Ann"))
    times = [time for one in found for time in (one.start, one.end)]
    assert found and times == sorted(times)
    assert times[-1] <= 2.3
    assert all(one.text == model.vocabulary.text(one.tokens) for one in found)


def test_the_same_recording_is_written_down_the_same_again(model: Model) -> None:
    asked = (a_tone(1.2), Hearing("de", temperature=0.8))
    assert passages(model, *asked) == passages(model, *asked)


def test_no_text_is_longer_than_the_model_was_taught(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was said before, and what is asked for, are a part of it."""
    lengths, read = [], net.Whisper.read

    def watched(
        of: net.Whisper, tokens: list[int], memory: list[net.Memory], heard: list[net.Pair]
    ) -> mx.array:
        lengths.append(len(memory[0]) + len(tokens))
        return read(of, tokens, memory, heard)

    monkeypatch.setattr(net.Whisper, "read", watched)
    passages(model, a_tone(2.3), Hearing("en", prompt="Ann and Ben and Cem and Dan and Eve"))
    assert max(lengths) == tinywhisper.TARGETS


def test_recordings_take_turns_a_window_each_and_who_leaves_is_gone(model: Model) -> None:
    ears = Ears(model)
    for ticket, seconds in ((1, 1.3), (2, 1.3), (3, 900.0)):
        ears.add(ticket, Job(a_tone(seconds), Hearing("en")))
    order = []
    while ears.size:
        for ticket, event in ears.step():
            assert isinstance(event, Heard)
            order.append((ticket, event.finish))
        if (3, None) in order:
            ears.remove([3])
    assert [one for one in order if one[0] != 3] == [
        (1, None), (2, None), (1, None), (2, None), (1, "stop"), (2, "stop"),
    ]  # fmt: skip
    assert order.count((3, None)) == 1


def test_a_damaged_recording_and_a_lack_of_memory_are_one_callers(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    ears = Ears(model)
    ears.add(1, Job(Recording(b"RIFF", "wav", 1), Hearing("en")))
    ears.add(2, Job(a_tone(0.5), Hearing("en")))
    ears.add(3, Job(a_tone(0.5), Hearing("en")))
    [(ticket, refused)] = ears.step()
    assert ticket == 1 and isinstance(refused, PromptRefused)

    def full(*_: object) -> None:
        raise RuntimeError("[malloc] Unable to allocate 5 bytes")

    monkeypatch.setattr(net.Whisper, "hear", full)
    with pytest.raises(OutOfMemory):
        ears.step()
    assert list(ears.reset()) == [2]
    assert ears.size == 1


def test_a_model_that_knows_english_only_says_so(tmp_path: Path) -> None:
    model, _ = load(tinywhisper.make(tmp_path / "english", english=True), Args(), None)
    model.vocabulary.check("en")
    model.vocabulary.check(None)
    with pytest.raises(PromptRefused, match="knows English only, not 'de'") as refused:
        model.vocabulary.check("de")
    assert refused.value.param == "language"
    assert {one.language for one in passages(model, a_tone(0.6), Hearing())} == {"en"}


def test_a_prompt_cannot_spell_what_ends_a_transcript(model: Model) -> None:
    spelt = model.vocabulary.words("a<|endoftext|>b<|0.00|>")
    assert model.vocabulary.text(spelt) == "ab<|0.00|>"


#: Ours of the weights -> MLX's own, as its converter writes them.
MLX_NAMES = (
    ("model.", ""),
    (".layers.", ".blocks."),
    (".encoder_attn_layer_norm.", ".cross_attn_ln."),
    (".encoder_attn.", ".cross_attn."),
    (".self_attn_layer_norm.", ".attn_ln."),
    (".self_attn.", ".attn."),
    (".final_layer_norm.", ".mlp_ln."),
    ("encoder.layer_norm.", "encoder.ln_post."),
    ("decoder.layer_norm.", "decoder.ln."),
    (".q_proj.", ".query."),
    (".k_proj.", ".key."),
    (".v_proj.", ".value."),
    (".out_proj.", ".out."),
    (".fc1.", ".mlp1."),
    (".fc2.", ".mlp2."),
    (".embed_tokens.", ".token_embedding."),
    (".embed_positions.weight", ".positional_embedding"),
)


def as_mlx_writes(path: Path) -> None:
    found = {}
    for name, value in load_file(path / "model.safetensors").items():
        for ours, theirs in MLX_NAMES:
            name = name.replace(ours, theirs)
        found[name] = (
            value.transpose(0, 2, 1).copy() if "conv" in name and value.ndim == 3 else value
        )
    save_file(found, path / "model.safetensors")
    names = {
        "n_mels": tinywhisper.BANDS,
        "n_audio_ctx": tinywhisper.SOURCES,
        "n_text_ctx": tinywhisper.TARGETS,
        "n_vocab": found["decoder.token_embedding.weight"].shape[0],
        **{f"n_{side}_state": tinywhisper.HIDDEN for side in ("audio", "text")},
        **{f"n_{side}_layer": tinywhisper.LAYERS for side in ("audio", "text")},
        **{f"n_{side}_head": 2 for side in ("audio", "text")},
    }
    (path / "config.json").write_text(json.dumps({"model_type": "whisper", **names}))


def test_mlx_s_own_files_make_the_same_model(tmp_path: Path, model: Model) -> None:
    path = tinywhisper.make(tmp_path / "mlx")
    as_mlx_writes(path)
    theirs, _ = load(path, Args(), None)
    for (name, ours), (_, other) in zip(
        tree_flatten(model.net.parameters()), tree_flatten(theirs.net.parameters()), strict=True
    ):
        assert mx.array_equal(ours, other), name


def test_weights_of_something_else_are_said_to_be_no_whisper(tmp_path: Path) -> None:
    path = tinywhisper.make(tmp_path / "other")
    (path / "config.json").write_text('{"model_type": "wav2vec2"}')
    with pytest.raises(LoadFailed, match="'wav2vec2' does not hear, whisper does"):
        load(path, Args(), None)


def test_what_numpy_computes_on_a_cpu_is_what_mlx_would() -> None:
    x = mx.random.normal((3, 2, 70, 16), key=mx.random.key(1))
    seen = mx.fast.scaled_dot_product_attention(x, x, x, scale=0.25)
    assert mx.allclose(exponentials.attention(x, x, x, 0.25), seen, atol=1e-5)
    y = mx.linspace(-9, 9, 7000).reshape(1, 70, 100)
    assert mx.abs(exponentials.gelu(y) - nn.gelu(y)).max() < 1e-6
    assert mx.allclose(exponentials.silu(9 * y), nn.silu(9 * y), rtol=1e-6, atol=1e-6)
    assert mx.abs(exponentials.silu(mx.full((64, 1), -500.0))).max() < 1e-6


def test_memory_is_reckoned_for_the_weights_and_one_window(tmp_path: Path) -> None:
    path = tinywhisper.make(tmp_path / "tiny")
    args = Args()
    wish = Wish(None, 1, PromptCacheConfig(enabled=False), args, on_cpu=True, whole=True)
    fit = Fitting(wish, Budget(2**40, "x")).of(path)
    assert fit.context == tinywhisper.SOURCES + tinywhisper.TARGETS
    assert fit.per_token == 2 * tinywhisper.LAYERS * tinywhisper.HIDDEN * 4
    small = Fitting(wish, Budget(2**20, "the container's limit is")).of(path)
    assert small.problem is not None
    assert "contextLength" not in small.problem
