"""Who waits for what another reads: only for much, once, and never behind a longer prompt."""

from __future__ import annotations

from pippin_server.engines.mlx.waiting import WORTH, Waiting

SHARED = list(range(1000, 1000 + 2 * WORTH))


def nobody_knows(tokens: object, adapter: int) -> int:
    return 0


def test_nobody_waits_while_nobody_reads() -> None:
    assert not Waiting(nobody_knows).must_wait(1, SHARED)


def test_who_shares_much_waits_until_it_is_read() -> None:
    waiting = Waiting(nobody_knows)
    waiting.reads(1, SHARED + [1] * 20)
    assert waiting.must_wait(2, SHARED + [2] * 90)
    waiting.only([1])
    assert waiting.must_wait(2, SHARED + [2] * 90)
    waiting.only([])
    assert not waiting.must_wait(2, SHARED + [2] * 90)


def test_nobody_waits_for_little() -> None:
    waiting = Waiting(nobody_knows)
    waiting.reads(1, SHARED)
    assert not waiting.must_wait(2, SHARED[: WORTH - 1] + [2] * WORTH)
    assert waiting.must_wait(3, SHARED[:WORTH] + [2] * WORTH)


def test_nobody_waits_behind_a_prompt_that_goes_on_for_long() -> None:
    waiting = Waiting(nobody_knows)
    waiting.reads(1, SHARED + [1] * len(SHARED) * 2)
    assert not waiting.must_wait(2, SHARED)


def test_nobody_waits_for_what_is_kept() -> None:
    waiting = Waiting(lambda tokens, adapter: len(SHARED) - 32)
    waiting.reads(1, SHARED)
    assert not waiting.must_wait(2, SHARED)


def test_nobody_waits_for_who_reads_by_another_adapter() -> None:
    waiting = Waiting(nobody_knows)
    waiting.reads(1, SHARED, 1)
    assert not waiting.must_wait(2, SHARED)
    assert not waiting.must_wait(3, SHARED, 2)
    assert waiting.must_wait(4, SHARED, 1)


def test_nobody_waits_twice() -> None:
    waiting = Waiting(nobody_knows)
    waiting.reads(1, SHARED)
    assert waiting.must_wait(2, SHARED) and waiting.must_wait(3, SHARED)
    waiting.only([])
    assert not waiting.must_wait(2, SHARED)
    waiting.reads(2, SHARED)
    assert not waiting.must_wait(3, SHARED), "it was not kept, and may not be this time"


def test_who_left_is_waited_for_no_longer() -> None:
    waiting = Waiting(nobody_knows)
    waiting.reads(1, SHARED)
    assert waiting.must_wait(2, SHARED)
    waiting.left(1)
    assert not waiting.must_wait(2, SHARED)
