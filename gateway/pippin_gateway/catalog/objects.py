"""From the API server's JSON to what the catalog holds. Pure, and tolerant of newer fields.

Raises Malformed for an object that makes no sense; such an object is left out, never guessed at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from pippin_contract import adapters, endpoint, providers, reach, units
from pippin_contract.endpoint import Endpoint
from pippin_contract.serverconfig import usual_concurrency
from pippin_contract.wire import ENDPOINT_CONDITION, LABEL_INSTANCE, SERVER_PORT
from pippin_edge.keyring import Row
from pippin_edge.limits.claims import TOKENS, Claim, Kind, key_owner, model_owner

from .model import (
    UNLIMITED,
    UNSAID,
    ApiKey,
    BreakerPolicy,
    CachePolicy,
    External,
    KeySpec,
    Limits,
    ModelSpec,
    PodState,
    Replica,
    RetryPolicy,
    Timeouts,
)

Raw = Mapping[str, Any]

#: How many requests a replica takes at once is the replica's own affair.
_OF_MODELS = (Kind.RPM, Kind.TPM)
#: Nobody else counts what a provider does at once.
_OF_PROVIDERS = (*_OF_MODELS, Kind.CONCURRENCY)


class Malformed(ValueError):
    """An object that the gateway cannot use; the text says which field and why."""


def ref(raw: Raw) -> tuple[str, str]:
    """Namespace and name: the identity of an object of a kind."""
    return raw["metadata"]["namespace"], raw["metadata"]["name"]


def parse_key(raw: Raw) -> KeySpec | None:
    """An APIKey; None when it is being deleted."""
    namespace, name = ref(raw)
    if raw["metadata"].get("deletionTimestamp"):
        return None
    spec, status = _part(raw, "spec"), _part(raw, "status")
    principal = ApiKey(
        namespace=namespace,
        name=name,
        uid=str(raw["metadata"].get("uid") or ""),
        models=reach.globs(filter(_is_text, spec.get("models") or ()), namespace),
        limits=_limits(_part(spec, "limits"), Kind, key_owner(f"{namespace}/{name}")),
        # Whatever word of a newer version this one does not know, it is no leave to go.
        stays=(spec.get("egress") or "Allow") != "Allow",
        ref=f"{namespace}/{name}",
        batch=spec.get("priority") == "batch",
    )
    expires = unix(spec.get("expiresAt"))
    rows = {}
    for key in status.get("keys") or ():
        try:
            key_id, digest = str(key["id"]), str(key["digest"])
        except (KeyError, TypeError) as error:
            raise Malformed("status.keys: an entry lacks id or digest") from error
        rows[key_id] = Row(
            digest=digest,
            principal=replace(principal, key_id=key_id),
            enabled=spec.get("enabled", True) is not False,
            not_after=_earliest(expires, unix(key.get("notAfter"))),
        )
    return KeySpec(principal=principal, rows=rows)


def parse_model(raw: Raw) -> ModelSpec | None:
    """A ModelDeployment; None when it is being deleted."""
    namespace, name = ref(raw)
    if raw["metadata"].get("deletionTimestamp"):
        return None
    spec = _part(raw, "spec")
    model = _part(spec, "model")
    served_name = model.get("name") or name
    external = _external(_part(spec, "engine"), served_name)
    return ModelSpec(
        namespace=namespace,
        name=name,
        served_name=served_name,
        external=external,
        aliases=tuple(model.get("aliases") or ()),
        adapters=_adapters(model, external),
        task=model.get("task") or "chat",
        timeouts=_timeouts(spec.get("timeouts") or {}),
        retries=_retries(spec.get("retries")),
        breaker=_breaker(spec.get("circuitBreaker") or {}),
        fallbacks=tuple(map(str, spec.get("fallbacks") or ())),
        opened_to=frozenset(map(str, _part(spec, "auth").get("namespaces") or ())),
        limits=_limits_of_model(spec, model_owner(f"{namespace}/{name}")),
        cache=_cache(_part(spec, "responseCache")),
        version=f"{raw['metadata'].get('uid')}/{raw['metadata'].get('generation')}",
        created=int(unix(raw["metadata"].get("creationTimestamp")) or 0),
        family=model.get("family") or "",
        tags=tuple(model.get("tags") or ()),
        context_length=model.get("contextLength"),
        description=model.get("description") or "",
        suspended=spec.get("suspend") is True,
        wanted=_wanted(spec),
        at_once=_at_once(spec),
        reason=_not_ready_reason(_part(raw, "status")),
    )


def parse_pod(raw: Raw) -> PodState:
    """A server Pod. It takes requests when it is Ready, not being deleted, and has an address.

    From a Pod on a node that is not heard of, Kubernetes takes Ready away, gives no reason, and
    leaves the node's own word as it was: ContainersReady.
    """
    namespace, pod = ref(raw)
    metadata, status = raw["metadata"], _part(raw, "status")
    model = (metadata.get("labels") or {}).get(LABEL_INSTANCE) or ""
    conditions = {condition.get("type"): condition for condition in status.get("conditions") or ()}
    ready = _is_true(conditions, "Ready")
    unheard = (
        not ready
        and _is_true(conditions, "ContainersReady")
        and not conditions.get("Ready", {}).get("reason")
    )
    replica = None
    if (ready or unheard) and not metadata.get("deletionTimestamp"):
        address = _address(raw)
        if address is not None:
            # A container that was started again may have another port: then it is another replica.
            replica = Replica(f"{metadata['uid']}/{address.authority}", pod=pod, endpoint=address)
    return PodState(namespace=namespace, model=model, replica=replica, unheard=unheard)


def _is_true(conditions: Raw, kind: str) -> bool:
    condition = conditions.get(kind)
    return condition is not None and condition.get("status") == "True"


def _is_text(glob: object) -> bool:
    return isinstance(glob, str)


def unix(timestamp: str | None) -> float | None:
    """Seconds since 1970 of an RFC 3339 timestamp."""
    if not timestamp:
        return None
    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except (TypeError, ValueError) as error:
        raise Malformed(f"{timestamp!r} is no timestamp") from error


def _part(raw: Raw, name: str) -> Raw:
    part = raw.get(name) or {}
    if not isinstance(part, Mapping):
        raise Malformed(f"{name} is no object")
    return part


def _earliest(*times: float | None) -> float | None:
    return min((time for time in times if time is not None), default=None)


def _timeouts(raw: Raw) -> Timeouts:
    if not raw:
        return UNSAID
    try:
        found = {name: units.seconds(value) for name, value in raw.items() if value}
    except (TypeError, ValueError) as error:
        raise Malformed(f"spec.timeouts: {error}") from error
    return Timeouts(
        connect=found.get("connect"),
        queue=found.get("queue"),
        first_token=found.get("firstToken"),
        request=found.get("request"),
        stream_idle=found.get("streamIdle"),
        total=found.get("total"),
    )


def _retries(raw: Raw | None) -> RetryPolicy:
    """Who says nothing gets one try more, at once: another replica has not failed yet."""
    if raw is None:
        return RetryPolicy()
    try:
        return RetryPolicy(int(raw["attempts"]), units.seconds(raw["backoff"]))
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed(f"spec.retries: {error}") from error


def _breaker(raw: Raw) -> BreakerPolicy:
    default = BreakerPolicy()
    try:
        return BreakerPolicy(
            failures=int(raw.get("failures") or default.failures),
            cooldown=units.seconds(raw["cooldown"]) if "cooldown" in raw else default.cooldown,
            probes=int(raw.get("halfOpenRequests") or default.probes),
        )
    except (TypeError, ValueError) as error:
        raise Malformed(f"spec.circuitBreaker: {error}") from error


def _cache(raw: Raw) -> CachePolicy | None:
    if raw.get("enabled") is not True:
        return None
    try:
        ttl, entries = units.seconds(raw.get("ttl") or "1h"), int(raw.get("maxEntries") or 1000)
    except (TypeError, ValueError) as error:
        raise Malformed(f"spec.responseCache: {error}") from error
    return CachePolicy(ttl, entries)


def _external(engine: Raw, served_name: str) -> External | None:
    if engine.get("type") != "external":
        return None
    raw = _part(engine, "external")
    secret = _part(raw, "apiKeySecretRef")
    try:
        url = str(raw["url"])
        return External(
            url=url,
            place=providers.parse(url),
            model=raw.get("model") or served_name,
            secret=(str(secret["name"]), str(secret["key"])) if secret else None,
        )
    except (KeyError, ValueError) as error:
        raise Malformed(f"spec.engine.external: {error}") from error


def _adapters(model: Raw, external: External | None) -> tuple[str, ...]:
    """Those that are served: where they have no effect, nothing is listed."""
    if external is not None or (model.get("task") or "chat") not in adapters.TASKS:
        return ()
    try:
        return tuple(str(adapter["name"]) for adapter in model.get("adapters") or ())
    except (KeyError, TypeError) as error:
        raise Malformed("spec.model.adapters: an entry lacks its name") from error


def _limits_of_model(spec: Raw, owner: str) -> Limits:
    raw, engine = _part(spec, "limits"), _part(spec, "engine")
    if engine.get("type") != "external":
        return _limits(raw, _OF_MODELS, owner)
    return _limits(providers.limits(_part(engine, "external"), raw), _OF_PROVIDERS, owner)


def _limits(raw: Raw, kinds: Iterable[Kind], owner: str) -> Limits:
    try:
        claims = tuple(
            Claim(kind, owner, int(raw[kind])) for kind in kinds if raw.get(kind) is not None
        )
    except (TypeError, ValueError) as error:
        raise Malformed(f"spec.limits: {error}") from error
    return Limits(claims, any(one.kind in TOKENS for one in claims)) if claims else UNLIMITED


def _wanted(spec: Raw) -> int:
    """Pods that it may have. Whom the operator scales gets one when somebody asks."""
    scaling, replicas = _part(spec, "autoscaling"), spec.get("replicas")
    if not scaling:
        return 1 if replicas is None else int(replicas)
    builtin = scaling.get("provider", "builtin") == "builtin"
    return int(scaling.get("maxReplicas" if builtin else "minReplicas", 1))


def _at_once(spec: Raw) -> int:
    gpus = _part(spec, "accelerator").get("type") in ("nvidia", "amd")
    engine = _part(spec, "engine").get("type") or ("vllm" if gpus else "")
    said = _part(spec, "limits").get("concurrency")
    return said if isinstance(said, int) else usual_concurrency(engine)


def _not_ready_reason(status: Raw) -> str:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Ready" and condition.get("status") != "True":
            return str(condition.get("reason") or "")
    return ""


def _address(raw: Raw) -> Endpoint | None:
    try:
        return endpoint.of_pod(raw, SERVER_PORT)
    except ValueError as error:
        raise Malformed(f"condition {ENDPOINT_CONDITION}: {error}") from error
