"""Recordings and pictures by their own headers; pictures that are kept for a while."""

from __future__ import annotations

import re
import struct
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pippin_contract.serverconfig import EchoConfig, ServerConfig
from pippin_server.engines import registry
from pippin_server.engines.base import EngineFailed
from pippin_server.engines.echo_media import EchoPainter, EchoTranscriber, _painted
from pippin_server.engines.media import Hearing, Painting, Recording
from pippin_server.media import pictures, sounds
from pippin_server.media.pictures import picture
from pippin_server.media.sounds import sound
from pippin_server.openai.images import fitting
from pippin_server.settings import load
from pippin_server.shelf import SECONDS, Shelf
from support.media import RECORDINGS, size, wav

FILES = sorted(path.name for path in RECORDINGS.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_a_recording_lasts_as_long_as_it_says(name: str) -> None:
    found = sound((RECORDINGS / name).read_bytes())
    assert found.container == name.rpartition(".")[2]
    assert found.seconds == pytest.approx(2.5, abs=0.1)


@pytest.mark.parametrize("seconds", [0.25, 1.0, 12.345])
def test_a_wav_is_measured_exactly(seconds: float) -> None:
    assert sound(wav(seconds)) == ("wav", seconds)


def test_a_wav_that_was_written_into_a_pipe_ends_with_the_file() -> None:
    content = bytearray(wav(2))
    at = content.index(b"data") + 4
    content[at : at + 4] = b"\xff" * 4
    assert sound(bytes(content)).seconds == 2
    assert sound(bytes(content[: len(content) // 2])).seconds == pytest.approx(1, abs=0.01)


def test_an_mp3_is_found_behind_its_tag_and_behind_damage() -> None:
    plain = (RECORDINGS / "constant.mp3").read_bytes()
    alone = plain[10 + plain[9] :] if plain[:3] == b"ID3" else plain
    tag = b"ID3\x04\0\0" + bytes([0, 0, 1, 0]) + b"\xff" * 128
    assert sound(tag + alone).seconds == pytest.approx(2.5, abs=0.1)
    half = len(alone) // 2
    assert sound(alone[:half] + b"\xff\0" * 20 + alone[half:]).seconds == pytest.approx(
        2.5, abs=0.2
    )


@pytest.mark.parametrize("name", FILES)
def test_a_recording_that_was_cut_short_is_measured_or_refused(name: str) -> None:
    whole = (RECORDINGS / name).read_bytes()
    for end in range(0, len(whole), max(1, len(whole) // 60)):
        try:
            assert 0 < sound(whole[:end]).seconds < 2.7
        except sounds.Unreadable as refused:
            assert str(refused).startswith("is ")


@given(st.sampled_from(FILES), st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255))))
def test_a_recording_with_any_header_is_measured_or_refused(
    name: str, changes: list[tuple[int, int]]
) -> None:
    content = bytearray((RECORDINGS / name).read_bytes())
    for at, value in changes:
        content[at] = value
    try:
        assert sound(bytes(content)).seconds > 0
    except sounds.Unreadable as refused:
        assert str(refused).startswith("is ")


def test_more_sound_than_the_file_can_hold_is_not_believed() -> None:
    content = bytearray((RECORDINGS / "plain.flac").read_bytes())
    content[21:26] = b"\x0f" + b"\xff" * 4
    with pytest.raises(sounds.Unreadable, match="damaged flac"):
        sound(bytes(content))


@pytest.mark.parametrize("content", [b"", b"hello", b"RIFF....AVI ", b"\xff\xff\xff\xff" * 99])
def test_what_is_no_recording_is_named_as_none(content: bytes) -> None:
    with pytest.raises(sounds.Unreadable, match="none of wav, mp3, flac, m4a, ogg"):
        sound(content)


JPEG = (
    b"\xff\xd8\xff\xe0\0\x04ab\xff\xc4\0\x05xyz\xff\xc2\0\x11\x08"
    + struct.pack(">HH", 30, 40)
    + bytes(12)
)


def webp(kind: bytes, body: bytes) -> bytes:
    return b"RIFF\0\0\0\0WEBP" + kind + b"\0\0\0\0" + body + bytes(10)


PICTURES = [
    (_painted(Painting("a", 40, 30, 0)), "png"),
    (JPEG, "jpeg"),
    (webp(b"VP8 ", bytes(6) + struct.pack("<HH", 40, 30)), "webp"),
    (webp(b"VP8L", b"\x2f" + (39 | 29 << 14).to_bytes(4, "little")), "webp"),
    (webp(b"VP8X", bytes(4) + b"\x27\0\0\x1d\0\0"), "webp"),
]


@pytest.mark.parametrize(("content", "kind"), PICTURES, ids=range(len(PICTURES)))
def test_a_picture_tells_its_size(content: bytes, kind: str) -> None:
    assert picture(content) == (kind, 40, 30)
    for end in range(len(content)):
        try:
            assert picture(content[:end]).kind == kind
        except pictures.Unreadable as refused:
            assert str(refused).startswith("is ")


@given(st.integers(64, 300), st.integers(64, 300), st.integers(0, 2**32))
def test_a_painted_picture_is_a_whole_png_of_its_size(wide: int, high: int, seed: int) -> None:
    assert size(_painted(Painting("a cat", wide, high, seed))) == (wide, high)


def test_the_same_wish_is_the_same_picture_and_another_is_another() -> None:
    made = [
        _painted(Painting("cat", 64, 64, 1)),
        _painted(Painting("cat", 64, 64, 2)),
        _painted(Painting("dog", 64, 64, 1)),
        _painted(Painting("cat", 64, 64, 1, sources=(b"x",))),
        _painted(Painting("cat", 64, 64, 1, sources=(b"x",), mask=b"y")),
    ]
    assert len(set(made)) == len(made)
    assert _painted(Painting("cat", 64, 64, 1)) == made[0]


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from([512**2, 2048**2]))
def test_an_edited_picture_has_the_nearest_size_that_is_possible(
    wide: int, high: int, ample: int
) -> None:
    sides = fitting(wide, high, ample)
    for side in sides:
        assert 64 <= side <= 2048
        assert side % 16 == 0
    assert sides[0] * sides[1] <= ample
    if wide % 16 == high % 16 == 0 and 64 <= min(wide, high) and wide * high <= ample:
        assert sides == (wide, high) or max(wide, high) > 2048


def test_a_kept_picture_is_there_until_its_time_is_over() -> None:
    now = [0.0]
    shelf = Shelf(lambda: now[0])
    name = shelf.put(b"picture")
    assert re.fullmatch(r"[\w-]{43}\.png", name)
    assert shelf.get(name) == (b"picture", SECONDS)
    now[0] = SECONDS - 1
    assert shelf.get(name) == (b"picture", 1)
    now[0] = SECONDS
    assert shelf.get(name) is None


def test_the_oldest_picture_makes_room_for_a_new_one() -> None:
    with closing(Shelf(lambda: 0.0, most_files=2, most_bytes=10)) as shelf:
        first, second = shelf.put(b"1"), shelf.put(b"2")
        third = shelf.put(b"3")
        assert shelf.get(first) is None
        assert shelf.get(second) is not None
        large = shelf.put(b"x" * 9)
        assert (shelf.get(second), shelf.get(third)) == (None, (b"3", SECONDS))
        assert shelf.get(large) is not None
        assert shelf.get("nothing") is None


@pytest.mark.parametrize(
    ("engine", "task", "others"),
    [
        ("vllm", "image", "mlx and echo do"),
        ("vllm", "transcription", "mlx and echo do"),
    ],
)
def test_an_engine_that_cannot_do_a_task_says_so_before_it_starts(
    engine: str, task: str, others: str
) -> None:
    told: dict[str, Any] = {"engine": engine, "model": {"task": task}}
    (problem,) = registry.problems(ServerConfig(name="x", served_name="x", **told))
    assert problem == f"task: the engine {engine} does no {task}: {others}"


@pytest.mark.parametrize(
    ("told", "task"),
    [
        ("multimodal", "chat"),
        ("whisper", "transcription"),
        ("image-generation", "image"),
        ("image-edit", "image"),
    ],
)
def test_the_types_of_earlier_servers_are_known(told: str, task: str) -> None:
    assert load({"MODEL_TYPE": told}).task == task


async def test_what_breaks_off_as_configured_breaks_off_here_too() -> None:
    knobs = EchoConfig(broken_percent=100)
    told: dict[str, Any] = {"context_length": 9, "clock": lambda: 0.0}
    heard = []
    with pytest.raises(EngineFailed):
        async for passage in EchoTranscriber(knobs, **told).transcribe(
            Recording(b"", "wav", 60), Hearing()
        ):
            heard.append(passage.end)
    assert heard == [10, 20, 30]
    with pytest.raises(EngineFailed):
        await EchoPainter(knobs, **told).paint(Painting("x", 64, 64, 0))
