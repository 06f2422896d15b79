"""What objects say together, judged before they are applied. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from . import adapters, providers, reach

Raw = Mapping[str, Any]
#: Namespace and name.
Ref = tuple[str, str]
MODEL, KEY, SECRET = "ModelDeployment", "APIKey", "Secret"


class Problem(NamedTuple):
    """`fatal`: it cannot work as it stands."""

    fatal: bool
    where: str
    says: str

    def __str__(self) -> str:
        return f"{'error' if self.fatal else 'warning'}: {self.where}: {self.says}"


class World:
    """All that there will be: what is there, with what is asked laid over it.

    `looked`: Secrets that were looked for, by their keys; None: not there.
    """

    def __init__(self, objects: Iterable[Raw], looked: Mapping[Ref, frozenset[str] | None]) -> None:
        self.models = {ref_of(one): one for one in objects if one["kind"] == MODEL}
        self.looked = looked

    def task(self, ref: Ref) -> str:
        return str(_model(self.models[ref]).get("task") or "chat")

    def fallbacks(self, ref: Ref) -> list[Ref]:
        named = self.models[ref]["spec"].get("fallbacks") or () if ref in self.models else ()
        return [(ref[0], name) for name in named]

    def opened_to(self, ref: Ref) -> tuple[str, ...]:
        return tuple((self.models[ref]["spec"].get("auth") or {}).get("namespaces") or ())

    def limits(self, ref: Ref) -> Raw:
        spec = self.models[ref]["spec"]
        external = (spec.get("engine") or {}).get("external")
        own: Raw = spec.get("limits") or {}
        return own if external is None else providers.limits(external, own)

    def names(self, ref: Ref) -> list[str]:
        return [*adapters.every_name(_model(self.models[ref]), ref[1])]


def problems(asked: Iterable[Raw], world: World, now: datetime) -> Iterator[Problem]:
    """Of the objects that are asked for."""
    for one in asked:
        if one["kind"] == MODEL:
            yield from _of_model(ref_of(one), world)
        elif one["kind"] == KEY:
            yield from _of_key(one, world, now)


def summary(objects: int, found: Sequence[Problem]) -> str:
    """The last line of what a person is told."""
    fatal = sum(problem.fatal for problem in found)
    return f"{objects} objects, {fatal} errors, {len(found) - fatal} warnings"


def wanted_secrets(one: Raw) -> list[tuple[Ref, str]]:
    """Secrets that an object needs and does not make itself, with the key inside; empty: any."""
    spec = one["spec"]
    found = [spec.get("existingSecretRef"), _model(one).get("credentialsSecretRef")]
    found += [has.get("credentialsSecretRef") for has in _model(one).get("adapters") or ()]
    external = (spec.get("engine") or {}).get("external") or {}
    found.append(external.get("apiKeySecretRef"))
    namespace = one["metadata"]["namespace"]
    return [((namespace, ref["name"]), ref.get("key") or "") for ref in found if ref]


def _of_model(ref: Ref, world: World) -> Iterator[Problem]:
    where = called(MODEL, ref)
    for other in world.fallbacks(ref):
        if other not in world.models:
            yield Problem(True, where, f"fallback {other[1]}: there is no such ModelDeployment")
        elif world.task(other) != world.task(ref):
            says = f"fallback {other[1]} is for {world.task(other)}, not for {world.task(ref)}"
            yield Problem(True, where, f"{says}, so it is never asked")
    circle = reach.circle(ref, world.fallbacks)
    if circle:
        yield Problem(
            True, where, f"fallbacks lead in a circle: {' -> '.join(name for _, name in circle)}"
        )
    for name in world.names(ref):
        for other in world.models:
            if other != ref and other[0] == ref[0] and name in world.names(other):
                yield Problem(True, where, f"the name {name} is also that of {other[1]}")
    yield from _secrets(world.models[ref], where, world)


def _of_key(one: Raw, world: World, now: datetime) -> Iterator[Problem]:
    ref, spec = ref_of(one), one["spec"]
    where = called(KEY, ref)
    globs = spec.get("models") or ()
    if not globs:
        yield Problem(False, where, "models is empty: it may use none")
    within: set[Ref] = set()
    for glob in globs:
        reached, shut = _reached(glob, ref[0], world)
        within |= reached
        for closed in sorted(shut):
            says = f"{'/'.join(closed)} is not opened to {ref[0]}: add it to its auth.namespaces"
            yield Problem(True, where, says)
        if not reached and not shut:
            yield Problem(False, where, f"{glob} matches no model")
    ends = spec.get("expiresAt")
    if ends and datetime.fromisoformat(ends) <= now:
        yield Problem(False, where, f"it ended at {ends}")
    yield from _limits(spec.get("limits") or {}, within, where, world)
    yield from _secrets(one, where, world)


def _reached(glob: str, home: str, world: World) -> tuple[set[Ref], set[Ref]]:
    """Models that the glob opens, and those that it names in vain."""
    globs = reach.globs([glob], home)
    reached: set[Ref] = set()
    shut: set[Ref] = set()
    for ref in world.models:
        if globs.cover(home, ref[0], world.names(ref)):
            mine = ref[0] == home or reach.opened(world.opened_to(ref), home)
            (reached if mine else shut).add(ref)
    if reached and "*" in glob:
        shut.clear()  # who names none in particular does not count on each
    return reached, shut


def _limits(limits: Raw, within: set[Ref], where: str, world: World) -> Iterator[Problem]:
    for kind in ("rpm", "tpm"):
        mine = limits.get(kind)
        theirs = [world.limits(ref).get(kind) for ref in sorted(within)]
        known = [limit for limit in theirs if limit is not None]
        if mine and known and len(known) == len(theirs) and mine > max(known):
            says = f"{kind} {mine} is more than any of its models lets through ({max(known)})"
            yield Problem(False, where, says)
    daily, minutely = limits.get("tokensPerDay"), limits.get("tpm")
    if daily and minutely and minutely > daily:
        yield Problem(False, where, f"tpm {minutely} is more than tokensPerDay {daily}")


def _secrets(one: Raw, where: str, world: World) -> Iterator[Problem]:
    for ref, key in wanted_secrets(one):
        if ref not in world.looked:
            continue
        keys = world.looked[ref]
        if keys is None:
            yield Problem(True, where, f"the Secret {ref[1]} is not there")
        elif key and key not in keys:
            yield Problem(True, where, f"the Secret {ref[1]} has no key {key}")


def ref_of(one: Raw) -> Ref:
    """Its identity among objects of its kind."""
    return one["metadata"]["namespace"], one["metadata"]["name"]


def _model(one: Raw) -> Raw:
    found: Raw = one["spec"].get("model") or {} if one["kind"] == MODEL else {}
    return found


def called(kind: str, ref: Ref) -> str:
    """How a person is told which object it is."""
    return f"{kind} {ref[0]}/{ref[1]}"
