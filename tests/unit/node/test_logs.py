"""Reading container logs in the CRI format."""

from __future__ import annotations

from pathlib import Path

import pytest

from pippin_node.logs import Reader, last_words


def line(text: str, tag: str = "F") -> str:
    return f"2026-01-01T00:00:00.000000000Z stdout {tag} {text}\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log.1").write_text("".join(line(f"old {i}") for i in range(3)))
    (tmp_path / "log").write_text("".join(line(f"new {i}") for i in range(3)))
    return tmp_path / "log"


def texts(lines: object) -> list[str]:
    return [one.text.decode() for one in lines]  # type: ignore[attr-defined]


def test_history_runs_over_rotated_files(log: Path) -> None:
    with Reader(log) as reader:
        assert texts(reader.history()) == ["old 0", "old 1", "old 2", "new 0", "new 1", "new 2"]


@pytest.mark.parametrize("count", [0, 1, 3, 5, 100])
def test_tail_counts_from_the_end(log: Path, count: int) -> None:
    everything = ["old 0", "old 1", "old 2", "new 0", "new 1", "new 2"]
    with Reader(log) as reader:
        assert texts(reader.tail(count)) == (everything[-count:] if count else [])


@pytest.mark.parametrize("first", ["history", "tail"])
def test_more_continues_where_the_first_look_ended(log: Path, first: str) -> None:
    with Reader(log) as reader:
        assert texts(reader.history() if first == "history" else reader.tail(1))[-1] == "new 2"
        assert reader.more() == []
        with log.open("a") as file:
            file.write(line("later") + "2026-01-01T00:00:00Z stdout F unfin")
        assert texts(reader.more()) == ["later"]
        with log.open("a") as file:
            file.write("ished\n")
        log.rename(log.with_name("log.2"))
        log.write_text(line("after rotation"))
        assert texts(reader.more()) == ["unfinished", "after rotation"]


def test_parts_of_a_long_line_are_one_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(line("before") + line("aaa", "P") + line("bbb", "P") + line("ccc"))
    with Reader(log) as reader:
        rendered = b"".join(one.render(False) for one in reader.tail(1))
    assert rendered == b"aaabbbccc\n"


def test_last_words_are_bounded(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(line("x" * 100) for _ in range(200)))
    assert len(last_words(log)) == 2048
    assert last_words(tmp_path / "absent") == ""


def test_foreign_lines_are_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("garbage\n" + line("good"))
    with Reader(log) as reader:
        assert texts(reader.history()) == ["good"]
