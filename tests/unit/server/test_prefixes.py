"""What is kept of prompts, whatever comes: never more than the cap, never what was not read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pippin_server.engines.mlx.prefixes import BLOCK, Prefixes

SIZE = 10
#: Few first tokens and few blocks, so that prompts have much in common.
PROMPTS = st.lists(st.integers(0, 2), max_size=6).map(
    lambda blocks: [token for kind in blocks for token in [kind] * BLOCK] + [9] * (len(blocks) % 3)
)


def told(tokens: list[int], start: int, end: int) -> list[tuple[int, ...]]:
    """States that say what they stand for: all tokens up to their end."""
    return [tuple(tokens[: at + BLOCK]) for at in range(start, end, BLOCK)]


def keep(prefixes: Prefixes[tuple[int, ...]], tokens: list[int]) -> None:
    prefixes.keep(tokens, SIZE, lambda start, end: told(tokens, start, end))


def blocks(*kinds: int) -> list[int]:
    return [token for kind in kinds for token in [kind] * BLOCK]


def kept(prefixes: Prefixes[tuple[int, ...]], tokens: list[int]) -> int:
    return len(prefixes.find(tokens))


@given(st.lists(st.tuples(st.booleans(), PROMPTS), max_size=40), st.integers(0, 12 * SIZE))
def test_whatever_comes_what_is_found_is_the_prompts_and_the_cap_holds(
    calls: list[tuple[bool, list[int]]], capacity: int
) -> None:
    prefixes = Prefixes[tuple[int, ...]](capacity)
    for keeps, tokens in calls:
        if keeps:
            keep(prefixes, tokens)
            if prefixes.bytes + SIZE <= capacity:  # nothing was in the way of it
                assert kept(prefixes, tokens) == len(tokens) // BLOCK
        found = prefixes.find(tokens)
        assert found == told(tokens, 0, len(found) * BLOCK)
        assert 0 <= prefixes.bytes <= capacity


def test_what_prompts_begin_with_is_kept_once() -> None:
    prefixes = Prefixes[tuple[int, ...]](100 * SIZE)
    for last in range(10):
        keep(prefixes, blocks(1, 2, 3, 10 + last))
    assert prefixes.bytes == (3 + 10) * SIZE


def test_half_a_block_is_not_kept() -> None:
    prefixes = Prefixes[tuple[int, ...]](100 * SIZE)
    keep(prefixes, blocks(1)[:-1])
    assert prefixes.bytes == 0
    keep(prefixes, blocks(1, 2)[:-1])
    assert kept(prefixes, blocks(1, 2)) == 1


def test_equal_tokens_after_other_ones_are_another_prefix() -> None:
    prefixes = Prefixes[tuple[int, ...]](100 * SIZE)
    keep(prefixes, blocks(1, 3))
    keep(prefixes, blocks(2))
    assert kept(prefixes, blocks(2, 3)) == 1


def test_the_least_recently_used_goes_first_and_from_its_end() -> None:
    prefixes = Prefixes[tuple[int, ...]](4 * SIZE)
    keep(prefixes, blocks(1, 2))
    keep(prefixes, blocks(3, 4))
    prefixes.find(blocks(1, 2))
    keep(prefixes, blocks(5))
    assert kept(prefixes, blocks(3, 4)) == 1
    assert kept(prefixes, blocks(1, 2)) == 2
    assert prefixes.evicted == 1


def test_a_prompt_beyond_the_cap_is_kept_as_far_as_it_goes_and_copied_no_further() -> None:
    prefixes = Prefixes[tuple[int, ...]](3 * SIZE)
    keep(prefixes, blocks(7))
    asked: list[int] = []
    long = blocks(1, 2, 3, 4, 5)

    def copy(start: int, end: int) -> list[tuple[int, ...]]:
        asked.append((end - start) // BLOCK)
        return told(long, start, end)

    prefixes.keep(long, SIZE, copy)
    assert asked == [3]
    assert kept(prefixes, long) == 3
    assert prefixes.bytes == 3 * SIZE


def test_what_is_there_is_not_copied_again() -> None:
    prefixes = Prefixes[tuple[int, ...]](9 * SIZE)
    keep(prefixes, blocks(1, 2))
    prefixes.keep(blocks(1, 2), SIZE, lambda start, end: 1 / 0)  # type: ignore[arg-type, return-value]
    keep(prefixes, blocks(1, 2, 3))
    assert prefixes.bytes == 3 * SIZE


def test_a_copy_that_fails_leaves_what_was_there() -> None:
    prefixes = Prefixes[tuple[int, ...]](9 * SIZE)
    keep(prefixes, blocks(1))
    try:
        prefixes.keep(blocks(1, 2), SIZE, lambda start, end: 1 / 0)  # type: ignore[arg-type, return-value]
    except ZeroDivisionError:
        assert kept(prefixes, blocks(1, 2)) == 1
    assert prefixes.bytes == SIZE


def test_nothing_is_left_after_clearing() -> None:
    prefixes = Prefixes[tuple[int, ...]](9 * SIZE)
    keep(prefixes, blocks(1, 2))
    prefixes.clear()
    assert (prefixes.bytes, kept(prefixes, blocks(1, 2))) == (0, 0)
    keep(prefixes, blocks(1, 2))
    assert kept(prefixes, blocks(1, 2)) == 2
