"""Limits that several gateways count together, in a real Redis that is also killed and stopped."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pippin_edge.clock import Clock
from pippin_edge.errors import NotReady
from pippin_edge.limits.claims import Claim, Kind
from pippin_edge.limits.memory import MemoryStore
from pippin_gateway.limiting.redis import RedisGone, address
from pippin_gateway.limiting.shared import Away, Receipt, SharedStore
from support.eventually import eventually
from support.redis import Redis


@asynccontextmanager
async def store(
    redis: Redis, gateway: str, away: Away = "localShare", *, connected: bool = True
) -> AsyncIterator[SharedStore]:
    """As one gateway has it."""
    found = SharedStore(redis.address, MemoryStore(), gateway=gateway, away=away)
    running = asyncio.create_task(found.run())
    try:
        if connected:
            await eventually(lambda: found.redis.up, within=5)
        yield found
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def stores(redis: Redis, count: int) -> AsyncIterator[list[SharedStore]]:
    """Several gateways."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(store(redis, f"g{i}")) for i in range(count)]


def claim(kind: Kind, limit: int, cost: int = 1, owner: str = "key/team-a/app") -> Claim:
    return Claim(kind, owner, limit, cost)


async def fits(store: SharedStore, *claims: Claim) -> Receipt | None:
    return (await store.take(claims))[1]


async def test_two_gateways_have_one_limit_of_each_kind(redis: Redis) -> None:
    async with stores(redis, 2) as (a, b):
        for kind in Kind:
            mine = claim(kind, 2)
            assert await fits(a, mine) and await fits(b, mine)
            for one in (a, b):
                (verdict,), receipt = await one.take([mine])
                assert receipt is None and verdict.remaining == 0
                assert 0 < verdict.wait <= (86_400 if kind is Kind.TOKENS_PER_DAY else 60)


async def test_the_verdict_is_that_of_the_meters_in_memory(redis: Redis) -> None:
    """Claim by claim, on Redis' clock: the two implementations agree on random requests."""
    steps = st.lists(
        st.tuples(
            st.sampled_from([Kind.RPM, Kind.TPM, Kind.CONCURRENCY]),
            st.integers(1, 5),
            st.one_of(st.none(), st.integers(0, 8)),
        ),
        max_size=25,
    )
    run = 0
    async with store(redis, "g") as shared:
        loop = asyncio.get_running_loop()

        async def play(owner: str, script: list[tuple[Kind, int, int | None]]) -> None:
            oracle = MemoryStore(Clock(monotonic=lambda: 1.0))
            for kind, cost, settled in script:
                one = claim(kind, 8, cost if kind is Kind.TPM else 1, owner)
                verdicts, receipt = await shared.take([one])
                expected, taken = oracle.take([one])
                assert (receipt is None) == (taken is None)
                assert verdicts[0].remaining == expected[0].remaining
                if receipt and taken and settled is not None:
                    shared.settle(receipt, {owner: settled})
                    oracle.settle(taken, {owner: settled})

        @given(steps)
        @settings(max_examples=60, deadline=None, suppress_health_check=[*HealthCheck])
        def agree(script: list[tuple[Kind, int, int | None]]) -> None:
            nonlocal run
            run += 1
            asyncio.run_coroutine_threadsafe(play(f"key/n/{run}", script), loop).result(20)

        await asyncio.to_thread(agree)


async def test_a_refused_request_takes_nothing(redis: Redis) -> None:
    async with store(redis, "g") as one:
        rpm, tpm = claim(Kind.RPM, 3), claim(Kind.TPM, 10, 8)
        assert await fits(one, rpm, tpm)
        assert not await fits(one, rpm, tpm)
        assert (await one.take([rpm]))[0][0].remaining == 1


async def test_the_window_slides_by_redis_own_clock(redis: Redis) -> None:
    """Entries of a minute ago are put where they would be by now, instead of waiting for them."""
    async with store(redis, "g") as one:
        mine = claim(Kind.TPM, 10, 4)
        assert await fits(one, mine) and await fits(one, mine)
        key = "pippin:tpm/key/team-a/app"
        first, _ = redis.ask("ZRANGE", key, "0", "-1")
        redis.ask("ZINCRBY", key, str(-30e6), first)
        (verdict,), receipt = await one.take([mine])
        assert receipt is None and 28 < verdict.wait < 30
        redis.ask("ZINCRBY", key, str(-30e6), first)
        assert await fits(one, mine)
        assert redis.ask("GET", key + ":sum") == "8"
        assert redis.ask("ZCARD", key) == 2


async def test_what_a_killed_gateway_had_under_way_ends_with_it(redis: Redis) -> None:
    mine = claim(Kind.CONCURRENCY, 1)
    async with store(redis, "lives") as lives:
        async with store(redis, "dies") as dies:
            assert await fits(dies, mine)
            assert not await fits(lives, mine)
        assert not await fits(lives, mine), "it may only be cut off"
        redis.ask("ZREM", "pippin:gateways", "dies")  # what the others do after ten seconds
        assert await fits(lives, mine)


async def test_forgotten_scripts_are_loaded_again(redis: Redis) -> None:
    async with store(redis, "g") as one:
        redis.ask("SCRIPT", "FLUSH")
        mine = claim(Kind.RPM, 2)
        assert await fits(one, mine)
        await eventually(lambda: one.redis.up, within=5)
        assert await fits(one, mine)
        assert not await fits(one, mine)


async def test_many_at_once_over_four_gateways_never_get_one_too_many(redis: Redis) -> None:
    async with stores(redis, 4) as gateways:
        limit, mine = 500, claim(Kind.RPM, 500)
        taken = await asyncio.gather(
            *(fits(gateways[i % 4], mine) for i in range(limit * 3)),
        )
        assert sum(one is not None for one in taken) == limit


async def test_without_redis_a_gateway_lets_its_share_in_and_redis_learns_of_it(
    redis: Redis,
) -> None:
    rpm, day, flight = (
        claim(Kind.RPM, 10),
        claim(Kind.TOKENS_PER_DAY, 50),
        claim(Kind.CONCURRENCY, 6),
    )
    async with stores(redis, 2) as (a, b):
        await eventually(lambda: (a.redis.gateways, b.redis.gateways) == (2, 2), within=5)
        first = await fits(a, rpm, day, flight)
        redis.kill()
        began = time.monotonic()
        receipts = [await fits(a, rpm, day, flight) for _ in range(4)]
        assert time.monotonic() - began < 1, "who waits for Redis is served without it"
        # Five requests each, one of which was before; three under way each.
        assert [receipt is not None for receipt in receipts] == [True, True, False, False]
        assert await fits(b, rpm)
        assert not a.redis.up and not b.redis.up
        for receipt in (first, *receipts[:1]):
            assert receipt
            a.settle(receipt, {"key/team-a/app": 7})
        await redis.start()
        await eventually(lambda: a.redis.up and b.redis.up, within=5)
        (requests, tokens, under_way), _ = await b.take([rpm, day, flight])
        assert requests.remaining == 10 - 3 - 1 - 1
        assert tokens.remaining == 50 - 7 - 7 - 1
        assert under_way.remaining == 6 - 1 - 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_redis_that_is_gone_or_hangs_is_noticed_within_a_second(
    redis: Redis, how: signal.Signals
) -> None:
    async with store(redis, "g", "failClosed") as closed, store(redis, "h", "failOpen") as opened:
        assert redis.process
        redis.process.send_signal(how)
        began = time.monotonic()
        with pytest.raises(NotReady) as refused:
            await closed.take([claim(Kind.RPM, 5)])
        assert refused.value.code == "limits_unavailable" and refused.value.retry_after == 1
        for _ in range(9):
            assert await fits(opened, claim(Kind.RPM, 5))
        assert time.monotonic() - began < 1.5
        redis.process.send_signal(signal.SIGCONT)


async def test_a_long_outage_with_many_keys_is_told_in_few_words(redis: Redis) -> None:
    claims = [claim(Kind.RPM, 10_000, owner=f"key/n/{number}") for number in range(3000)]
    absent = Redis("", redis.directory, port=redis.port)
    redis.kill()
    async with store(absent, "g", connected=False) as one:
        for mine in claims:
            for _ in range(3):
                assert await fits(one, mine)
        await redis.start()
        await eventually(lambda: one.redis.up, within=10)
        for mine in claims[::500]:
            (verdict,), _ = await one.take([mine])
            assert verdict.remaining == 10_000 - 4
    assert all(int(redis.ask("ZCARD", f"pippin:{mine.meter}")) <= 3 for mine in claims[::500])


async def test_what_redis_could_not_be_told_it_is_told_the_next_time(redis: Redis) -> None:
    rpm, day = claim(Kind.RPM, 10), claim(Kind.TOKENS_PER_DAY, 100)
    key = f"pippin:{rpm.meter}"
    async with store(redis, "g") as one:
        redis.ask("CONFIG", "SET", "appendfsync", "always")  # else it may be lost with the kill
        redis.ask("SET", key, "in the way")
        redis.kill()
        receipts = [await fits(one, rpm, day) for _ in range(3)]
        for receipt in receipts:
            assert receipt
            one.settle(receipt, {"key/team-a/app": 9})
        await redis.start()
        await eventually(lambda: "WRONGTYPE" in str(redis.ask("INFO", "errorstats")), within=10)
        assert not one.redis.up
        redis.ask("DEL", key)
        await eventually(lambda: one.redis.up, within=10)
        (requests, tokens), _ = await one.take([rpm, day])
        assert requests.remaining == 10 - 3 - 1
        assert tokens.remaining == 100 - 3 * 9 - 1


async def test_a_gateway_that_stood_still_itself_does_not_blame_redis(redis: Redis) -> None:
    async with store(redis, "g", "failClosed") as one:
        asking = asyncio.create_task(fits(one, claim(Kind.RPM, 5)))
        for _ in range(3):
            await asyncio.sleep(0)
        time.sleep(0.8)  # noqa: ASYNC251 - what is tested
        assert await asking
        await asyncio.sleep(0.1)
        assert one.redis.up


async def test_a_redis_that_never_was_there_is_waited_for(tmp_path: Path) -> None:
    absent = Redis("", tmp_path)
    async with store(absent, "g", connected=False) as alone:
        assert await fits(alone, claim(Kind.RPM, 1))
        assert not await fits(alone, claim(Kind.RPM, 1))


async def test_a_wrong_password_is_no_connection_and_not_told(
    redis: Redis, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    redis.password_file.write_text("wrong-password-here")
    async with store(redis, "g", connected=False) as one:
        with pytest.raises(RedisGone):
            one.redis.send_script("alive", [], []).result()
        await eventually(
            lambda: "WRONGPASS" in (told := capsys.readouterr().out) and told, within=5
        )
        assert not one.redis.up
    assert "wrong-password-here" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "url", ["http://x", "redis://", "redis://:secret@x", "redis://x/notanumber"]
)
def test_a_wrong_address_is_named_without_its_secret(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="redisUrl must") as refused:
        address(url, tmp_path / "none", tmp_path / "none")
    assert "secret" not in str(refused.value)
