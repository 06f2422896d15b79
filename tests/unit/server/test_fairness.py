"""Who comes in next: interactive first, then who was given least."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pippin_server.fairness import GUESS, REMEMBERED, Ledger, Row, Standing

BATCH = Standing("batch", batch=True)


def a_row(**waiting: int) -> Row[str]:
    """So many requests of each key."""
    row: Row[str] = Row(Ledger())
    for key, count in waiting.items():
        for number in range(count):
            row.add(Standing(key), f"{key}{number}")
    return row


def served(row: Row[str], tokens: dict[str, int], rounds: int) -> list[str]:
    """The keys that come in, one after the other; each takes its tokens."""
    order = []
    for _ in range(rounds):
        found = row.pop(batch_too=True)
        assert found is not None
        key = found[0].key
        row.ledger.leaves(key, row.ledger.enters(key), tokens[key])
        order.append(key)
    return order


def test_one_key_comes_in_by_its_order() -> None:
    row = a_row(a=3)
    assert [row.pop(batch_too=True) for _ in range(3)] == [
        (Standing("a"), f"a{number}") for number in range(3)
    ]
    assert row.pop(batch_too=True) is None


def test_a_key_with_a_hundred_requests_does_not_hold_up_one_with_two() -> None:
    row = a_row(greedy=100)
    row.add(Standing("other"), "x")
    row.add(Standing("other"), "y")
    order = served(row, {"greedy": 300, "other": 300}, 6)
    assert order.index("other") <= 1
    assert order[:4].count("other") == 2


@given(first=st.integers(1, 2000), second=st.integers(1, 2000), rounds=st.integers(1, 60))
def test_two_keys_that_always_wait_get_the_same_tokens(
    first: int, second: int, rounds: int
) -> None:
    row = a_row(a=60, b=60)
    tokens = {"a": first, "b": second}
    order = served(row, tokens, rounds)
    got = {key: order.count(key) * tokens[key] for key in tokens}
    assert abs(got["a"] - got["b"]) <= max(first, second)


def test_nobody_saves_up_for_a_burst() -> None:
    row = a_row(busy=40)
    served(row, {"busy": 1000}, 20)
    for number in range(20):
        row.add(Standing("late"), f"late{number}")
    order = served(row, {"busy": 1000, "late": 1000}, 10)
    assert order.count("late") <= 6


def test_what_runs_counts_before_anybody_knows_what_it_takes() -> None:
    row = a_row(a=3)
    row.add(Standing("b"), "b0")
    order = []
    for _ in range(4):
        found = row.pop(batch_too=True)
        assert found is not None
        row.ledger.enters(found[0].key)
        order.append(found[0].key)
    assert order == ["a", "b", "a", "a"]


def test_batches_come_last_and_only_where_they_may() -> None:
    row = a_row(a=1)
    row.add(BATCH, "slow")
    row.add(Standing("b"), "b0")
    assert {row.pop(batch_too=True), row.pop(batch_too=True)} == {
        (Standing("a"), "a0"),
        (Standing("b"), "b0"),
    }
    assert row.pop(batch_too=False) is None
    assert row.pop(batch_too=True) == (BATCH, "slow")


def test_the_last_of_the_largest_batch_goes_first() -> None:
    row = a_row(a=1)
    assert row.evict() is None
    for number in range(2):
        row.add(BATCH, f"many{number}")
    row.add(Standing("few", batch=True), "few0")
    assert row.evict() == "many1"
    assert len(row) == 3


def test_who_waits_no_more_is_forgotten() -> None:
    row = a_row(a=1)
    assert row.discard(Standing("a"), "a0")
    assert not row.discard(Standing("a"), "a0")
    assert not row.discard(Standing("b"), "b0")
    assert (len(row), list(row)) == (0, [])


def test_keys_that_come_once_do_not_pile_up() -> None:
    ledger = Ledger()
    guessed = ledger.enters("long")
    for number in range(3 * REMEMBERED):
        ledger.leaves(f"k{number}", ledger.enters(f"k{number}"), 10)
    assert len(ledger._accounts) <= REMEMBERED + 1
    assert ledger.served("long") == guessed == GUESS
