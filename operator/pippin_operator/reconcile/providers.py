"""The keys of providers outside: from Secrets of their ModelDeployments' namespaces into the one
Secret that the gateway reads.

Server-side apply of the whole Secret over the version that was read, so that a row which is not
wanted any more goes, and of two operators one starts again.
"""

from __future__ import annotations

import base64

import structlog

from pippin_contract import providers, wire
from pippin_contract.providers import Handed

from ..api.engine import External
from ..api.honored import provider
from ..api.resources import MODELDEPLOYMENT, SECRET, Manifest, Ref
from ..errors import ApiError, Conflict, NotFound
from ..keychain import entry
from ..render.context import Model
from ..status.pods import Trouble
from .deps import Deps

log = structlog.get_logger(__name__)


async def settle(deps: Deps, model: Model) -> Trouble | None:
    """Hand the key over, if the model wants one; what keeps it from that."""
    row = providers.row(model.namespace, model.name)
    external = provider(model.spec)
    if external is None or external.api_key_secret_ref is None:
        await _hand(deps, row, None)
        return None
    found = await _read(deps, model.namespace, external)
    await _hand(deps, row, found if isinstance(found, Handed) else None)
    return found if isinstance(found, Trouble) else None


async def forget(deps: Deps, ref: Ref) -> None:
    """Its ModelDeployment is gone."""
    await _hand(deps, providers.row(ref.namespace, ref.name), None)


async def read_again(deps: Deps) -> None:
    """What is handed over, without the rows of those that went while nobody looked."""
    deps.installation.providers = secret = await _ensure(deps)
    for row in secret.get("data") or {}:
        ref = Ref(MODELDEPLOYMENT.plural, *providers.owner(row))
        if deps.store.get(ref) is None:
            await forget(deps, ref)


async def _read(deps: Deps, namespace: str, external: External) -> Handed | Trouble:
    reference = external.api_key_secret_ref
    assert reference is not None
    where = f"Secret {reference.name}, key {reference.key}"
    try:
        secret = await deps.cluster.get(SECRET, namespace, reference.name)
    except NotFound:
        made = f"kubectl create secret generic {reference.name} --from-literal={reference.key}=…"
        return Trouble("SecretNotFound", f"{where}: there is no such Secret, make it: {made}")
    except ApiError as error:
        if error.status == 403:
            return Trouble("ReconcileError", str(error))
        raise
    key = entry(secret, reference.key)
    if key is None:
        return Trouble("SecretKeyMissing", f"{where}: the Secret has no such key, or it is no text")
    if not providers.sendable(key):
        most = providers.MAX_KEY
        return Trouble("KeyMalformed", f"{where}: a key is at most {most} visible ASCII characters")
    return Handed(url=external.url, secret=reference.name, entry=reference.key, key=key)


async def _hand(deps: Deps, row: str, key: Handed | None) -> None:
    """Write the row, or take it out, if it is not so already."""
    text = base64.b64encode(key.model_dump_json(by_alias=True).encode()).decode() if key else None
    async with deps.installation.handing_over:
        for last in (False, True):
            held = deps.installation.providers
            rows: dict[str, str] = held.get("data") or {}
            if rows.get(row) == text:
                return
            rest = {other: known for other, known in rows.items() if other != row}
            try:
                deps.installation.providers = await _write(
                    deps, held, {**rest, **({row: text} if text else {})}
                )
                log.info("provider.handed" if text else "provider.taken_back", entry=row)
                return
            except (Conflict, NotFound):
                if last:
                    raise
                deps.installation.providers = await _ensure(deps)


async def _write(deps: Deps, held: Manifest, rows: dict[str, str]) -> Manifest:
    metadata = {key: held["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
    return await deps.cluster.apply(_secret(metadata) | {"data": rows}, SECRET, force=True)


async def _ensure(deps: Deps) -> Manifest:
    """As it is. The chart makes it empty, so that it goes with the release."""
    name, namespace = wire.PROVIDERS_SECRET, deps.settings.namespace
    try:
        return await deps.cluster.get(SECRET, namespace, name)
    except NotFound:
        labels = {wire.LABEL_MANAGED_BY: wire.MANAGER}
        metadata = {"name": name, "namespace": namespace, "labels": labels}
    try:
        return await deps.cluster.create(_secret(metadata), SECRET)
    except Conflict:
        return await deps.cluster.get(SECRET, namespace, name)


def _secret(metadata: Manifest) -> Manifest:
    return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata}
