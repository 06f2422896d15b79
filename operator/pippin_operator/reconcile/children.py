"""Children as wanted: what differs is applied, what is ours and no longer wanted is deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from ..api.resources import (
    CHILDREN,
    CONFIGMAP,
    MODELDEPLOYMENT,
    SERVICE,
    SERVICEMONITOR,
    Manifest,
    Ref,
    Resource,
)
from ..drift import first_difference
from ..errors import Conflict, NotFound, NotYet
from .deps import Deps

log = structlog.get_logger(__name__)


#: Made by POST, which never touches what is there already. Others are applied: another's object
#: under the name has fields (the selector) that its owner set otherwise, and that is a conflict;
#: and a field of theirs that we want no more can only go if it was applied.
_CREATED = (CONFIGMAP, SERVICE)
#: Seconds after which a name that somebody else's object has is tried again.
NAME_IN_USE = 15.0


class NameInUse(NotYet):
    """An object of somebody else's has the name that a child of ours needs."""


async def settle(deps: Deps, owner: Manifest, wanted: Sequence[Manifest]) -> None:
    """Apply and prune. The first error is raised when all children have been tried."""
    results = await asyncio.gather(
        *(_settle_one(deps, owner, manifest) for manifest in wanted),
        *(_delete(deps, kind, live) for kind, live in _superfluous(deps, owner, wanted)),
        return_exceptions=True,
    )
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _settle_one(deps: Deps, owner: Manifest, manifest: Manifest) -> None:
    try:
        await _ensure(deps, owner, manifest)
    except NotFound:
        if manifest["kind"] != SERVICEMONITOR.kind:
            raise
        # Its kind went since it was last looked for. The next look tells; the model serves on.
        log.info("child.kind_gone", child=str(Ref.of(SERVICEMONITOR, manifest)))


async def _ensure(deps: Deps, owner: Manifest, manifest: Manifest) -> None:
    resource = CHILDREN[manifest["kind"]]
    ref = Ref.of(resource, manifest)
    live = deps.store.get(ref)
    if live is None:
        deps.store.put(resource, await _first(deps, owner, manifest, resource))
        return
    difference = first_difference(manifest, live)
    if difference is not None:
        log.info("child.changed", child=str(ref), field=difference)
        deps.store.put(resource, await deps.cluster.apply(manifest, resource, force=True))


async def _first(deps: Deps, owner: Manifest, manifest: Manifest, resource: Resource) -> Manifest:
    """Make it, unless something is there under its name: ours, unknown to us yet, or another's."""
    cluster, metadata = deps.cluster, manifest["metadata"]
    try:
        if resource in _CREATED:
            return await cluster.create(manifest, resource)
        return await cluster.apply(manifest, resource, force=False)
    except Conflict:
        live = await cluster.get(resource, metadata["namespace"], metadata["name"])
    if owned_by(live, owner):
        return await cluster.apply(manifest, resource, force=True)
    raise NameInUse(
        f"{resource.kind} {metadata['name']} exists and is not Pippin's: delete it, or choose"
        f" another name for this {owner['kind']}",
        after=NAME_IN_USE,
    )


def _superfluous(
    deps: Deps, owner: Manifest, wanted: Sequence[Manifest]
) -> list[tuple[Resource, Manifest]]:
    keep = {Ref.of(CHILDREN[manifest["kind"]], manifest) for manifest in wanted}
    owner_ref = Ref.of(MODELDEPLOYMENT, owner)
    return [
        (resource, live)
        for resource in CHILDREN.values()
        for live in deps.store.children(owner_ref, resource.plural)
        if Ref.of(resource, live) not in keep and owned_by(live, owner)
    ]


async def _delete(deps: Deps, resource: Resource, live: Manifest) -> None:
    log.info("child.deleted", child=str(Ref.of(resource, live)))
    await deps.cluster.delete(resource, live)


def owned_by(live: Manifest, owner: Manifest) -> bool:
    references: list[dict[str, Any]] = live["metadata"].get("ownerReferences") or []
    return any(reference["uid"] == owner["metadata"]["uid"] for reference in references)
