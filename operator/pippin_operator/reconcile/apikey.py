"""The story of an APIKey. Its Secret is the truth: digests in the status are made from it."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from pydantic import ValidationError

from pippin_contract import apikeys, wire

from ..api.apikey import APIKeySpec
from ..api.resources import APIKEY, SECRET, Manifest, Ref
from ..errors import ApiError, Conflict, InvalidSpec, NotFound
from ..render.names import owner
from ..status.apikey import Held, derive, ends_at, expired
from ..status.pods import Trouble
from .children import owned_by
from .deps import Deps
from .write import write_status


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
    return _next_look(deps, spec)


def parse(live: Manifest) -> APIKeySpec:
    try:
        return APIKeySpec.model_validate(live.get("spec") or {})
    except ValidationError as error:
        raise InvalidSpec(str(error)) from error


def _next_look(deps: Deps, spec: APIKeySpec) -> float:
    """Secrets are not watched (no right to list them), so they are looked at from time to time."""
    ends = ends_at(spec)
    pause = deps.settings.key_check_seconds
    if ends is None or expired(spec, deps.now()):
        return pause
    return min(pause, (ends - deps.now()).total_seconds() + 0.1)


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
    key = _read(secret, reference.key)
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
    """The key in our Secret, made now when there is none."""
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
    if _read(secret, wire.SECRET_API_KEY) is None or not _base_url_right(deps, secret):
        secret = await _mend(deps, live, name, secret)
    key = _read(secret, wire.SECRET_API_KEY)
    assert key is not None
    return Held(apikeys.key_id(key), apikeys.digest(key), name)


async def _create(deps: Deps, live: Manifest, name: str) -> Manifest:
    key = apikeys.mint(deps.random_bytes).key
    try:
        return await deps.cluster.create(_secret(deps, live, name, key), SECRET)
    except Conflict:
        # Somebody was first; whoever it was, what is there now decides.
        return await deps.cluster.get(SECRET, live["metadata"]["namespace"], name)


async def _mend(deps: Deps, live: Manifest, name: str, secret: Manifest) -> Manifest:
    """The key stays when there is one; the base URL follows the setting."""
    key = _read(secret, wire.SECRET_API_KEY) or apikeys.mint(deps.random_bytes).key
    return await deps.cluster.apply(_secret(deps, live, name, key), SECRET, force=True)


def _secret(deps: Deps, live: Manifest, name: str, key: str) -> Manifest:
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
            "ownerReferences": [reference],
        },
        "data": {
            wire.SECRET_API_KEY: base64.b64encode(key.encode()).decode(),
            wire.SECRET_BASE_URL: base64.b64encode(deps.settings.base_url.encode()).decode(),
        },
    }


def _base_url_right(deps: Deps, secret: Manifest) -> bool:
    return _read(secret, wire.SECRET_BASE_URL) == deps.settings.base_url


def _read(secret: Manifest, key: str) -> str | None:
    """The text without the newline that editors add. None when it is missing or no text."""
    data: dict[str, Any] = secret.get("data") or {}
    try:
        text = base64.b64decode(data[key], validate=True).decode().strip()
    except (KeyError, binascii.Error, UnicodeDecodeError):
        return None
    return text or None


def _sendable(key: str) -> bool:
    """Whether it can stand in an HTTP header."""
    return all("!" <= character <= "~" for character in key)
