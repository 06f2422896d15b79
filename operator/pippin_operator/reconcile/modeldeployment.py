"""The story of a ModelDeployment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from ..api import honored
from ..api.modeldeployment import ModelDeploymentSpec
from ..api.resources import DEPLOYMENT, MODELDEPLOYMENT, POD, Manifest, Ref
from ..errors import ApiError, InvalidSpec
from ..keychain import stamp
from ..render.children import render
from ..render.context import Model
from ..status import fallbacks
from ..status.modeldeployment import Seen, Wanted, derive
from ..status.pods import Trouble, is_creating
from . import providers, storage
from .children import NameInUse, settle
from .complaints import complaint
from .deps import Deps
from .write import write_status

#: Seconds until events are read again for a Pod that a node is making.
_LOOK_AGAIN = 3.0


async def reconcile(deps: Deps, ref: Ref) -> float | None:
    """Settle one ModelDeployment; seconds until it wants another look.

    Its end is its children's, by their owner references, and that of its provider's key.
    """
    live = deps.store.get(ref)
    if live is None or live["metadata"].get("deletionTimestamp"):
        await providers.forget(deps, ref)
        return None
    try:
        model = replace(parse(live), scaled=_scaled(deps, ref, live))
    except InvalidSpec as error:
        await _write(deps, live, None, Seen(failure=Trouble("InvalidSpec", str(error))))
        raise
    failure: ApiError | NameInUse | None = None
    provider: Trouble | None = None
    try:
        provider = await providers.settle(deps, model)
        await settle(deps, live, render(model, deps.context))
        await storage.settle(deps, model)
    except (ApiError, NameInUse) as error:
        failure = error
    creating = [pod for pod in deps.store.children(ref, POD.plural) if is_creating(pod)]
    seen = _seen(deps, live, _told(failure), await complaint(deps, creating))
    await _write(deps, live, model, replace(seen, provider=provider))
    if failure is not None:
        raise failure
    return _next_look(deps, model, creating)


def _next_look(deps: Deps, model: Model, creating: Sequence[Manifest]) -> float | None:
    """Secrets are not watched (no right to list them), so they are looked at from time to time."""
    outside = honored.provider(model.spec)
    if outside is not None and outside.api_key_secret_ref is not None:
        return deps.settings.key_check_seconds
    return _LOOK_AGAIN if creating else None


def parse(live: Manifest) -> Model:
    """Raises InvalidSpec with every wrong field: an object older than today's schema, perhaps."""
    metadata = live["metadata"]
    try:
        spec = ModelDeploymentSpec.model_validate(live.get("spec") or {})
    except ValidationError as error:
        raise InvalidSpec(
            "; ".join(
                f"spec.{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
                for problem in error.errors()
            )
        ) from error
    return Model(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        spec=spec,
    )


def _scaled(deps: Deps, ref: Ref, live: Manifest) -> int | None:
    """What was decided; after a start, what the workload has: the number lives there."""
    wanted = deps.scales.wanted(live["metadata"]["uid"])
    return workload_replicas(deps, ref) if wanted is None else wanted


def workload_replicas(deps: Deps, ref: Ref) -> int | None:
    """Pods that the Deployment is to have; None when there is none."""
    deployment = next(iter(deps.store.children(ref, DEPLOYMENT.plural)), None)
    replicas: int | None = deployment["spec"].get("replicas", 1) if deployment else None
    return replicas


def _told(failure: ApiError | NameInUse | None) -> Trouble | None:
    """What users are told. An API server that is away is not theirs to mend, nor to be told."""
    if failure is None or (isinstance(failure, ApiError) and failure.status in (0, 409, 429)):
        return None
    reason = "NameTaken" if isinstance(failure, NameInUse) else "ReconcileError"
    return Trouble(reason, str(failure))


async def _write(deps: Deps, live: Manifest, model: Model | None, seen: Seen) -> None:
    old = live.get("status") or {}
    status = derive(_wanted(deps, live, model), seen, old, stamp(deps.now()))
    await write_status(deps, MODELDEPLOYMENT, live, status)


def _wanted(deps: Deps, live: Manifest, model: Model | None) -> Wanted:
    metadata = live["metadata"]
    return Wanted(
        name=metadata["name"],
        served_name=model.served_name if model else metadata["name"],
        generation=metadata.get("generation", 0),
        replicas=model.replicas if model else None,
        spec=model.spec if model else None,
        url=deps.settings.base_url,
    )


def _seen(deps: Deps, live: Manifest, failure: Trouble | None, told: Trouble | None) -> Seen:
    ref = Ref.of(MODELDEPLOYMENT, live)
    deployments = deps.store.children(ref, DEPLOYMENT.plural)
    deployment: Any = next(iter(deployments), None)
    return Seen(
        deployment=deployment,
        pods=tuple(deps.store.children(ref, POD.plural)),
        monitoring_api=deps.installation.monitoring_api,
        name_taken=deps.store.taken(ref),
        fallbacks=fallbacks.judge(
            ref.name, lambda name: deps.store.fallbacks(replace(ref, name=name))
        ),
        failure=failure,
        complaint=told,
    )
