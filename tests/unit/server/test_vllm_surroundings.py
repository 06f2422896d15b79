"""What the vLLM engine settles before vLLM is there."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from pippin_server.engines.vllm import surroundings
from pippin_server.engines.vllm.offspring import LastWords, settle_in

GIB = 2**30


@pytest.mark.parametrize(
    ("weights", "limit", "cache"),
    [(GIB, 64 * GIB, 4 * GIB), (GIB // 2, 6 * GIB, GIB), (4 * GIB, 8 * GIB, GIB // 4)],
)
def test_the_cache_leaves_room_for_the_rest(weights: int, limit: int, cache: int) -> None:
    assert surroundings.cpu_cache_bytes(weights, limit) == cache


def test_what_an_administrator_has_set_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"HF_HUB_OFFLINE": "0", "PROMETHEUS_MULTIPROC_DIR": "/x"})
    words = surroundings.settle(tmp_path / "scratch", "info")
    assert os.environ["HF_HUB_OFFLINE"] == "0"
    assert os.environ["VLLM_NO_USAGE_STATS"] == "1"
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
    assert words.parent.is_dir() and not words.exists()


def test_the_first_exception_is_the_one_that_is_kept(tmp_path: Path) -> None:
    words = tmp_path / "words"
    logger = logging.Logger("engine")
    logger.addHandler(LastWords(words))
    logger.error("no exception, no words")
    assert not words.exists()
    for text in ("the cause", "what came of it"):
        try:
            raise ValueError(text)
        except ValueError:
            logger.exception("failed")
    assert words.read_text() == "ValueError: the cause"


def test_nothing_happens_to_a_process_that_is_no_engines() -> None:
    before = list(logging.getLogger().handlers)
    settle_in()
    assert logging.getLogger().handlers == before
