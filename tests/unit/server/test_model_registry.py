"""Which models are in memory: loaded once, kept while in use, sent away by age, given up for a
while when they fail."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from pippin_server.engines.base import LoadFailed
from pippin_server.models.registry import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Bounds,
    Closed,
    Failed,
    Full,
    InUse,
    Registry,
    Unavailable,
)
from support.eventually import eventually


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Shop:
    """Models are their names. `weights` of each, 1 when nothing is said; `gates` hold loads up."""

    weights: dict[str, int] = field(default_factory=dict)
    failing: dict[str, Exception] = field(default_factory=dict)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    leaving: dict[str, asyncio.Event] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    opened: Counter[str] = field(default_factory=Counter)
    closed: list[str] = field(default_factory=list)
    #: Whether a load that is cancelled goes on to its end, as a thread does.
    stubborn: bool = False

    async def weigh(self, name: str) -> int:
        return self.weights.get(name, 1)

    async def open(self, name: str) -> str:
        self.opened[name] += 1
        self.broken.discard(name)
        if name in self.failing:
            raise self.failing[name]
        if name in self.gates:
            await self._pass(self.gates[name])
        return name

    async def _pass(self, gate: asyncio.Event) -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            if not self.stubborn:
                raise
            await gate.wait()

    async def close(self, name: str, model: str) -> None:
        if name in self.leaving:
            await self.leaving[name].wait()
        self.closed.append(name)

    def sound(self, model: str) -> bool:
        return model not in self.broken


@dataclass
class World:
    registry: Registry[str]
    shop: Shop
    clock: Clock

    async def asked(self, *names: str) -> None:
        """One after another, each a second later."""
        for name in names:
            async with self.registry.use(name) as model:
                assert model == name
            self.clock.now += 1

    def state(self, name: str) -> str:
        return self.registry.entries[name].state

    @property
    def loaded(self) -> set[str]:
        return {entry.name for entry in self.registry.loaded()}


Make = Callable[..., World]


@asynccontextmanager
async def a_world(**bounds: float) -> AsyncIterator[World]:
    shop, clock = Shop(), Clock()
    told = Bounds(
        models=int(bounds.get("models", 3)),
        memory=int(bounds.get("memory", 0)),
        timeout=bounds.get("timeout", 60),
    )
    world = World(Registry("abcde", shop, told, clock), shop, clock)
    try:
        yield world
    finally:
        for gate in (*shop.gates.values(), *shop.leaving.values()):
            gate.set()
        await world.registry.close()


async def held(world: World, name: str) -> tuple[asyncio.Task[None], asyncio.Event]:
    """A request that has the model until the event is set."""
    end, has = asyncio.Event(), asyncio.Event()

    async def request() -> None:
        async with world.registry.use(name):
            has.set()
            await end.wait()

    task = asyncio.create_task(request())
    await has.wait()
    return task, end


def waiting(world: World, name: str) -> asyncio.Task[None]:
    async def request() -> None:
        async with world.registry.use(name):
            pass

    return asyncio.create_task(request())


async def test_a_model_is_loaded_when_it_is_first_asked_for_and_stays() -> None:
    async with a_world() as world:
        assert world.state("a") == "unloaded"
        await world.asked("a", "a")
        assert world.state("a") == "loaded"
        assert world.shop.opened == {"a": 1}


async def test_a_name_that_is_not_known_is_a_key_error() -> None:
    async with a_world() as world:
        with pytest.raises(KeyError):
            await world.asked("z")


async def test_requests_that_come_together_load_once() -> None:
    async with a_world() as world:
        gate = world.shop.gates["a"] = asyncio.Event()
        requests = [waiting(world, "a") for _ in range(5)]
        await eventually(lambda: world.shop.opened["a"], within=10)
        assert world.state("a") == "loading"
        gate.set()
        await asyncio.gather(*requests)
        assert world.shop.opened == {"a": 1}


async def test_a_load_holds_up_nobody_who_asks_for_another_model() -> None:
    async with a_world() as world:
        world.shop.gates["a"] = asyncio.Event()
        await world.asked("b")
        slow = waiting(world, "a")
        await eventually(lambda: world.shop.opened["a"], within=10)
        await world.asked("b", "c")
        assert not slow.done()
        slow.cancel()


async def test_who_leaves_while_it_loads_does_not_end_the_load() -> None:
    async with a_world() as world:
        gate = world.shop.gates["a"] = asyncio.Event()
        first, second = waiting(world, "a"), waiting(world, "a")
        await eventually(lambda: world.shop.opened["a"], within=10)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        gate.set()
        await second
        assert world.shop.opened == {"a": 1}
        assert world.registry.entries["a"].users == 0


async def test_the_model_that_was_not_used_for_longest_makes_room() -> None:
    async with a_world(models=2) as world:
        await world.asked("a", "b", "a", "c")
        assert world.loaded == {"a", "c"}
        assert world.shop.closed == ["b"]
        assert world.registry.entries["b"].evictions == 1
        assert world.registry.entries["b"].held == 0


async def test_memory_decides_before_the_number_does() -> None:
    async with a_world(models=5, memory=10) as world:
        world.shop.weights = {"a": 4, "b": 4, "c": 7}
        await world.asked("a", "b", "c")
        assert world.loaded == {"c"}
        assert world.registry.held == 7
        assert world.shop.closed == ["a", "b"]


async def test_no_more_go_than_must() -> None:
    async with a_world(models=5, memory=10) as world:
        world.shop.weights = {"a": 4, "b": 4, "c": 5}
        await world.asked("a", "b", "c")
        assert world.loaded == {"b", "c"}


async def test_a_memory_that_nobody_knows_bounds_nothing() -> None:
    async with a_world(models=2, memory=0) as world:
        world.shop.weights = {"a": 10**15, "b": 10**15}
        await world.asked("a", "b")
        assert world.loaded == {"a", "b"}


async def test_a_model_in_use_never_goes() -> None:
    async with a_world(models=2) as world:
        request, end = await held(world, "a")
        await world.asked("b", "b", "c")
        assert world.loaded == {"a", "c"}
        assert world.shop.closed == ["b"]
        end.set()
        await request


async def test_when_all_are_in_use_there_is_no_room_and_nothing_is_remembered() -> None:
    async with a_world(models=1) as world:
        request, end = await held(world, "a")
        with pytest.raises(Full) as caught:
            await world.asked("b")
        assert caught.value.again > 0
        assert world.state("b") == "unloaded"
        assert world.shop.opened == {"a": 1}
        end.set()
        await request
        await world.asked("b")
        assert world.loaded == {"b"}


async def test_a_model_that_others_wait_for_is_not_sent_away_before_they_had_it() -> None:
    async with a_world(models=1) as world:
        gate = world.shop.gates["a"] = asyncio.Event()
        request = waiting(world, "a")
        await eventually(lambda: world.shop.opened["a"], within=10)
        world.registry.bounds = Bounds(models=1)
        with pytest.raises(Full):
            await world.asked("b")
        gate.set()
        await request
        assert world.loaded == {"a"}


async def test_two_that_need_room_at_once_get_it_one_after_the_other() -> None:
    async with a_world(models=3) as world:
        await world.asked("a", "b", "c")
        world.shop.leaving = {"a": asyncio.Event(), "b": asyncio.Event()}
        requests = [waiting(world, "d"), waiting(world, "e")]
        await eventually(lambda: world.state("a") == "unloading", within=10)
        assert world.state("b") == "loaded"
        for leaves in world.shop.leaving.values():
            leaves.set()
        await asyncio.gather(*requests)
        assert world.loaded == {"c", "d", "e"}


async def test_who_asks_for_a_model_that_is_leaving_gets_it_again() -> None:
    async with a_world() as world:
        await world.asked("a")
        leaves = world.shop.leaving["a"] = asyncio.Event()
        unloading = asyncio.create_task(world.registry.unload("a"))
        await eventually(lambda: world.state("a") == "unloading", within=10)
        request = waiting(world, "a")
        leaves.set()
        await asyncio.gather(unloading, request)
        assert world.shop.opened == {"a": 2}
        assert world.loaded == {"a"}


async def test_the_memory_of_a_model_counts_until_it_is_free() -> None:
    async with a_world(memory=10) as world:
        world.shop.weights = {"a": 8, "b": 8}
        await world.asked("a")
        leaves = world.shop.leaving["a"] = asyncio.Event()
        request = waiting(world, "b")
        await eventually(lambda: world.state("a") == "unloading", within=10)
        assert world.registry.held == 8
        assert not world.shop.opened["b"]
        leaves.set()
        await request
        assert world.registry.held == 8
        assert world.loaded == {"b"}


async def test_a_failure_is_told_for_a_while_and_then_it_is_tried_again() -> None:
    async with a_world() as world:
        world.shop.failing["a"] = LoadFailed("ModelCorrupted", "half a file")
        for _ in range(3):
            with pytest.raises(Failed, match="half a file") as caught:
                await world.asked("a")
        assert caught.value.again == pytest.approx(FIRST_PAUSE)
        assert (world.state("a"), world.shop.opened["a"]) == ("failed", 1)
        assert world.registry.held == 0
        world.clock.now += FIRST_PAUSE
        del world.shop.failing["a"]
        await world.asked("a")
        assert world.state("a") == "loaded"


async def test_each_failure_doubles_the_pause_to_a_bound_and_success_forgets_them() -> None:
    async with a_world() as world:
        world.shop.failing["a"] = LoadFailed("ModelCorrupted", "half a file")
        pauses = []
        for _ in range(7):
            with pytest.raises(Failed) as caught:
                await world.asked("a")
            pauses.append(caught.value.again)
            world.clock.now += caught.value.again
        assert pauses == [FIRST_PAUSE * 2**n for n in range(5)] + [LONGEST_PAUSE] * 2
        failure = world.shop.failing.pop("a")
        await world.asked("a")
        await world.registry.unload("a")
        world.shop.failing["a"] = failure
        with pytest.raises(Failed) as caught:
            await world.asked("a")
        assert caught.value.again == FIRST_PAUSE


async def test_who_says_load_does_not_wait_for_the_pause_to_end() -> None:
    async with a_world() as world:
        world.shop.failing["a"] = LoadFailed("ModelCorrupted", "half a file")
        with pytest.raises(Failed):
            await world.asked("a")
        del world.shop.failing["a"]
        assert await world.registry.load("a") == "a"


async def test_a_bug_while_loading_is_a_failure_whose_text_stays_inside() -> None:
    async with a_world() as world:
        world.shop.failing["a"] = ZeroDivisionError("secret")
        with pytest.raises(Failed, match="ZeroDivisionError while loading") as caught:
            await world.asked("a")
        assert "secret" not in str(caught.value)


async def test_a_load_that_takes_too_long_fails_and_lets_others_in() -> None:
    async with a_world(models=1, timeout=0.05) as world:
        world.shop.gates["a"] = asyncio.Event()
        with pytest.raises(Failed, match="not loaded within 0.05 seconds"):
            await world.asked("a")
        await eventually(lambda: world.registry.held == 0, within=10)
        world.registry.bounds = Bounds(models=1)
        await world.asked("b")
        assert world.loaded == {"b"}


async def test_a_late_load_keeps_its_memory_until_it_has_ended_and_is_then_given_up() -> None:
    async with a_world(models=1, timeout=0.05) as world:
        world.shop.stubborn = True
        gate = world.shop.gates["a"] = asyncio.Event()
        with pytest.raises(Failed):
            await world.asked("a")
        assert world.registry.held == 1
        with pytest.raises(Failed):  # not twice at once, whoever asks
            await world.registry.load("a")
        with pytest.raises(Full):
            await world.asked("b")
        gate.set()
        await eventually(lambda: world.shop.closed == ["a"], within=10)
        assert world.state("a") == "failed"
        await eventually(lambda: world.registry.held == 0, within=10)
        await world.asked("b")


async def test_a_model_larger_than_all_memory_fails_and_sends_nobody_away() -> None:
    async with a_world(memory=10) as world:
        world.shop.weights = {"b": 11}
        await world.asked("a")
        with pytest.raises(Failed, match="more memory"):
            await world.asked("b")
        assert world.loaded == {"a"}


async def test_unloading_gives_the_memory_back() -> None:
    async with a_world() as world:
        await world.asked("a")
        await world.registry.unload("a")
        assert (world.state("a"), world.registry.held, world.shop.closed) == ("unloaded", 0, ["a"])
        await world.registry.unload("a")  # which it is already
        assert world.shop.closed == ["a"]


async def test_a_model_in_use_or_on_its_way_is_not_unloaded() -> None:
    async with a_world() as world:
        request, end = await held(world, "a")
        gate = world.shop.gates["b"] = asyncio.Event()
        loading = waiting(world, "b")
        await eventually(lambda: world.shop.opened["b"], within=10)
        for name in "ab":
            with pytest.raises(InUse):
                await world.registry.unload(name)
        end.set()
        gate.set()
        await asyncio.gather(request, loading)


async def test_an_engine_that_died_is_replaced_when_nobody_else_is_in_it() -> None:
    async with a_world() as world:
        await world.asked("a")
        request, end = await held(world, "a")
        world.shop.broken.add("a")
        await world.asked("a")  # the other one is still in it
        assert world.shop.opened["a"] == 1
        end.set()
        await request
        await world.asked("a")
        assert (world.shop.closed, world.shop.opened["a"]) == (["a"], 2)


async def test_the_end_refuses_those_who_wait_and_closes_everything() -> None:
    async with a_world() as world:
        await world.asked("a")
        world.shop.gates["b"] = asyncio.Event()
        waits = waiting(world, "b")
        await eventually(lambda: world.shop.opened["b"], within=10)
        world.registry.refuse()
        with pytest.raises(Closed):
            await waits
        with pytest.raises(Unavailable):
            await world.asked("c")
        await world.asked("a")  # what is here answers to the last
        await world.registry.close()
        assert world.shop.closed == ["a"]
        assert world.registry.held == 0
