"""The one status write of a run, skipped when nothing moved, and the events of what flipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from ..api.resources import EVENT, Manifest, Resource
from ..drift import first_difference
from ..errors import ApiError, Conflict, NotFound
from ..status.conditions import Flip, flips
from .deps import Deps

log = structlog.get_logger(__name__)
_NOTE_MOST = 1000


async def write_status(
    deps: Deps, resource: Resource, live: Manifest, status: Mapping[str, Any]
) -> None:
    """`status` holds every field that the operator owns; others' fields stay."""
    old = live.get("status") or {}
    if _settled(old, status):
        return
    try:
        written = await deps.cluster.apply_status(resource, live, status)
    except (NotFound, Conflict) as gone:
        # Deleted meanwhile, or made anew: its own event brings the next run.
        log.debug("status.not_written", why=str(gone))
        return
    deps.store.put(resource, written)
    for flip in flips(old.get("conditions", ()), status["conditions"]):
        await post(deps, resource, live, flip)


#: Fields that the operator owns and leaves out when there is nothing to say.
_OPTIONAL = ("keyId", "keys", "secretRef")


def _settled(old: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    dropped = any(key in old and key not in status for key in _OPTIONAL)
    return not dropped and first_difference(status, old) is None


async def post(deps: Deps, resource: Resource, live: Manifest, flip: Flip) -> None:
    """An event about the object."""
    metadata = live["metadata"]
    now = deps.now()
    event = {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {
            "generateName": f"{metadata['name']}-",
            "namespace": metadata["namespace"],
        },
        "regarding": {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "type": "Warning" if flip.bad else "Normal",
        "reason": flip.reason,
        "action": flip.type,
        "note": (flip.message or flip.reason)[:_NOTE_MOST],
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": "pippin.dev/operator",
        "reportingInstance": "pippin-operator",
    }
    try:
        await deps.cluster.create(event, EVENT)
    except ApiError as error:
        # An event is a courtesy: a namespace on its way out, or a quota, must not stop the work.
        log.warning("event.not_posted", why=str(error))
