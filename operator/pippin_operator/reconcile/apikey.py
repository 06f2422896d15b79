"""The story of an APIKey. Its Secret is the truth: digests in the status are made from it."""

from __future__ import annotations

import base64

import structlog
from pydantic import ValidationError

from pippin_contract import apikeys, wire

from .. import keychain
from ..api.apikey import APIKeySpec
from ..api.resources import APIKEY, SECRET, Manifest, Ref
from ..errors import ApiError, Conflict, InvalidSpec, NotFound
from ..keychain import KeyChain, entry
from ..render.names import owner
from ..status.apikey import Held, derive, ends_at, expired
from ..status.pods import Trouble
from . import rotation
from .children import owned_by
from .deps import Deps
from .write import write_status

log = structlog.get_logger(__name__)


async def reconcile(deps: Deps, ref: Ref) -> float | None:
    """Settle one APIKey; seconds until it wants another look."""
    live = deps.store.get(ref)
    if live is None or live["metadata"].get("deletionTimestamp"):
        return None
    spec = parse(live)
    held = await _held(deps, live, spec)
    generation = live["metadata"].get("generation", 0)
    status = derive(spec, generation, held, live.get("status") or {}, deps.now())
    await write_status(deps, APIKEY, live, status)
    return _next_look(deps, spec, held)


def parse(live: Manifest) -> APIKeySpec:
    try:
        return APIKeySpec.model_validate(live.get("spec") or {})
    except ValidationError as error:
        raise InvalidSpec(str(error)) from error


def _next_look(deps: Deps, spec: APIKeySpec, held: Held | Trouble) -> float:
    """Secrets are not watched (no right to list them), so they are looked at from time to time."""
    now = deps.now()
    moments = [ends_at(spec)]
    if isinstance(held, Held):
        moments += [held.due, *(keychain.moment(one.not_after) for one in held.earlier)]
    ahead = [(at - now).total_seconds() + 0.1 for at in moments if at is not None and at > now]
    return min([deps.settings.key_check_seconds, *ahead])


async def _held(deps: Deps, live: Manifest, spec: APIKeySpec) -> Held | Trouble:
    try:
        if spec.existing_secret_ref is not None:
            return await _brought(deps, live, spec)
        return await _minted(deps, live, spec)
    except ApiError as error:
        if error.status in (403, 422):
            return Trouble("ReconcileError", str(error))
        raise


async def _brought(deps: Deps, live: Manifest, spec: APIKeySpec) -> Held | Trouble:
    """A key that the user made: looked at, never written."""
    reference = spec.existing_secret_ref
    assert reference is not None
    where = f"Secret {reference.name}, key {reference.key}"
    try:
        secret = await deps.cluster.get(SECRET, live["metadata"]["namespace"], reference.name)
    except NotFound:
        return Trouble("SecretNotFound", f"{where}: there is no such Secret, make it")
    key = entry(secret, reference.key)
    if key is None:
        return Trouble("SecretKeyMissing", f"{where}: the Secret has no such key, or it is no text")
    if len(key) < apikeys.MIN_FOREIGN_LENGTH:
        least = apikeys.MIN_FOREIGN_LENGTH
        return Trouble("KeyTooShort", f"{where}: a key needs at least {least} characters")
    if len(key) > apikeys.MAX_LENGTH or not _sendable(key):
        return Trouble(
            "KeyMalformed",
            f"{where}: a key is at most {apikeys.MAX_LENGTH} visible ASCII characters",
        )
    return Held(apikeys.key_id(key), apikeys.digest(key), reference.name, reference.key)


async def _minted(deps: Deps, live: Manifest, spec: APIKeySpec) -> Held | Trouble:
    """The key in our Secret: made when there is none, replaced when it is time."""
    metadata = live["metadata"]
    name = spec.secret_name or f"{metadata['name']}-apikey"
    try:
        secret = await deps.cluster.get(SECRET, metadata["namespace"], name)
    except NotFound:
        secret = await _create(deps, live, name)
    if not owned_by(secret, live):
        return Trouble(
            "SecretNameTaken",
            f"Secret {name} exists and is not this APIKey's: delete it, or set spec.secretName"
            " (existingSecretRef uses a key of your own)",
        )
    held = keychain.read(secret)
    chain = _settled(deps, live, spec, held or _first(deps, live))
    if chain != held or entry(secret, wire.SECRET_BASE_URL) != deps.settings.base_url:
        # Only over what was read: of two that replace a key at once, one starts again.
        version = secret["metadata"]["resourceVersion"]
        await deps.cluster.apply(_secret(deps, live, name, chain, version), SECRET, force=True)
    return Held(
        apikeys.key_id(chain.key),
        apikeys.digest(chain.key),
        name,
        created_at=chain.created_at,
        earlier=chain.earlier,
        due=rotation.due_at(spec, chain),
    )


def _settled(deps: Deps, live: Manifest, spec: APIKeySpec, chain: KeyChain) -> KeyChain:
    """As it should be now. What is refused anyway is not replaced."""
    now = deps.now()
    chain = chain.good(now)
    if not spec.enabled or expired(spec, now) or not rotation.due(live, spec, chain, now):
        return chain
    key = apikeys.mint(deps.random_bytes).key
    rotated = chain.rotated(key, rotation.asked_for(live), now, rotation.overlap(spec))
    log.info("apikey.rotated", key_id=apikeys.key_id(key), before=apikeys.key_id(chain.key))
    return rotated


def _first(deps: Deps, live: Manifest) -> KeyChain:
    """A new APIKey's; whatever its annotation says was there before there was a key to replace."""
    key = apikeys.mint(deps.random_bytes).key
    return KeyChain(key, keychain.stamp(deps.now()), rotation.asked_for(live))


async def _create(deps: Deps, live: Manifest, name: str) -> Manifest:
    try:
        return await deps.cluster.create(_secret(deps, live, name, _first(deps, live)), SECRET)
    except Conflict:
        # Somebody was first; whoever it was, what is there now decides.
        return await deps.cluster.get(SECRET, live["metadata"]["namespace"], name)


def _secret(
    deps: Deps, live: Manifest, name: str, chain: KeyChain, version: str | None = None
) -> Manifest:
    metadata = live["metadata"]
    reference = owner(APIKEY.api_version, APIKEY.kind, metadata["name"], metadata["uid"])
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": {
                wire.LABEL_NAME: "pippin-apikey",
                wire.LABEL_INSTANCE: metadata["name"],
                wire.LABEL_MANAGED_BY: wire.MANAGER,
            },
            "annotations": chain.annotations,
            "ownerReferences": [reference],
            **({"resourceVersion": version} if version else {}),
        },
        "data": {
            wire.SECRET_API_KEY: base64.b64encode(chain.key.encode()).decode(),
            wire.SECRET_BASE_URL: base64.b64encode(deps.settings.base_url.encode()).decode(),
        },
    }


def _sendable(key: str) -> bool:
    """Whether it can stand in an HTTP header."""
    return all("!" <= character <= "~" for character in key)
