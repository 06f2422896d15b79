"""Children as wanted: what differs is applied, what is ours and no longer wanted is deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from ..api.resources import CHILDREN, MODELDEPLOYMENT, Manifest, Ref, Resource
from ..drift import first_difference
from ..errors import NotFound, OperatorError
from .deps import Deps

log = structlog.get_logger(__name__)


class NameInUse(OperatorError):
    """An object of somebody else's has the name that a child of ours needs."""


async def settle(deps: Deps, owner: Manifest, wanted: Sequence[Manifest]) -> None:
    """Apply and prune. The first error is raised when all children have been tried."""
    results = await asyncio.gather(
        *(_ensure(deps, owner, manifest) for manifest in wanted),
        *(_delete(deps, kind, live) for kind, live in _superfluous(deps, owner, wanted)),
        return_exceptions=True,
    )
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _ensure(deps: Deps, owner: Manifest, manifest: Manifest) -> None:
    resource = CHILDREN[manifest["kind"]]
    ref = Ref.of(resource, manifest)
    live = deps.store.get(ref)
    if live is None:
        live = await _unknown_to_us(deps, owner, resource, ref)
    if live is not None:
        difference = first_difference(manifest, live)
        if difference is None:
            return
        log.info("child.repaired", child=str(ref), field=difference)
    applied = await deps.cluster.apply(manifest, resource, force=live is not None)
    deps.store.put(resource, applied)


async def _unknown_to_us(
    deps: Deps, owner: Manifest, resource: Resource, ref: Ref
) -> Manifest | None:
    """Nothing, or what is there under the name: ours with its labels edited away, or another's."""
    try:
        live = await deps.cluster.get(resource, ref.namespace, ref.name)
    except NotFound:
        return None
    if owned_by(live, owner):
        return live
    raise NameInUse(
        f"{resource.kind} {ref.name} exists and is not Pippin's: delete it, or choose another"
        f" name for this {owner['kind']}"
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
