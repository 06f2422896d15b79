"""The volume for weights: made once, grown when more is asked for, and never made smaller.

Looked at when its model is: claims are not watched.
"""

from __future__ import annotations

import structlog

from pippin_contract.units import quantity

from ..api.resources import CLAIM, Manifest, Ref
from ..errors import NotFound
from ..render import names
from ..render.context import Model
from ..render.storage import claim
from .children import NAME_IN_USE, NameInUse
from .deps import Deps

log = structlog.get_logger(__name__)

#: Said again as they are: left out, they would be taken back, which the API server refuses.
_FIXED = ("accessModes", "storageClassName")


async def settle(deps: Deps, model: Model) -> None:
    """Raises ApiError in the API server's words, and NameInUse."""
    wanted = claim(model)
    if wanted is None:
        return
    try:
        live = await deps.cluster.get(CLAIM, model.namespace, wanted["metadata"]["name"])
    except NotFound:
        await deps.cluster.apply(wanted, CLAIM, force=False)
        return
    if not _is_ours(live, model):
        raise NameInUse(
            f"PersistentVolumeClaim {live['metadata']['name']} exists and is not Pippin's: delete"
            " it, or choose another name for this ModelDeployment",
            after=NAME_IN_USE,
        )
    body = _changed(live, wanted)
    if body is not None:
        log.info("claim.changed", child=str(Ref.of(CLAIM, live)))
        await deps.cluster.apply(body, CLAIM, force=True)


def _is_ours(live: Manifest, model: Model) -> bool:
    """Also of a ModelDeployment of that name before this one: its weights are good."""
    found = live["metadata"].get("labels") or {}
    return all(found.get(key) == value for key, value in names.labels(model).items())


def _changed(live: Manifest, wanted: Manifest) -> Manifest | None:
    """What may change of a claim, where it does: who owns it, and more room once it is bound."""
    owners = wanted["metadata"].get("ownerReferences", [])
    room = live["spec"]["resources"]["requests"]["storage"]
    asked = wanted["spec"]["resources"]["requests"]["storage"]
    grows = live.get("status", {}).get("phase") == "Bound" and quantity(asked) > quantity(room)
    if not grows and owners == live["metadata"].get("ownerReferences", []):
        return None
    fixed = {key: live["spec"][key] for key in _FIXED if key in live["spec"]}
    requests = {"storage": asked if grows else room}
    return {**wanted, "spec": {**fixed, "resources": {"requests": requests}}}
