"""The catalog: keys, models and replicas as one immutable value, and how it is put together.

Pure. A change in the cluster makes a new Catalog, so a request sees one state from end to end,
and a revoked key is gone the moment the new value stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from pippin_contract import adapters
from pippin_contract.endpoint import Endpoint
from pippin_contract.providers import Place
from pippin_contract.reach import Globs
from pippin_edge.keyring import Keyring, Row
from pippin_edge.limits.claims import Claim


@dataclass(frozen=True, slots=True)
class Limits:
    """What a key, or all callers of a model, may use."""

    #: With the cost of a request; what one takes of tokens is told by the request.
    claims: tuple[Claim, ...] = ()
    #: Whether it matters how many tokens a request takes.
    counts_tokens: bool = False


#: What is not limited.
UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Who calls: what an APIKey allows."""

    namespace: str
    name: str
    models: Globs = Globs()
    limits: Limits = UNLIMITED
    #: What it asks never leaves the cluster.
    stays: bool = False
    #: namespace/name: how metrics, logs and tokens call this key.
    ref: str = ""
    #: Of the APIKey: another one of its name is another one.
    uid: str = ""
    #: Which of its keys was shown; not a secret.
    key_id: str = ""
    #: Others' requests go first.
    batch: bool = False


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; None where the ModelDeployment says nothing."""

    connect: float | None = None
    queue: float | None = None
    first_token: float | None = None
    request: float | None = None
    stream_idle: float | None = None
    total: float | None = None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Tries in all, and the longest pause before another, in seconds."""

    attempts: int = 2
    backoff: float = 0.0


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """Failures in a row that open a replica's breaker; seconds until it is tried again; by how
    many requests at a time.
    """

    failures: int = 5
    cooldown: float = 60.0
    probes: int = 1


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Of a model whose answers are kept: for how many seconds, and how many."""

    ttl: float
    entries: int


#: The times of a ModelDeployment that sets none.
UNSAID = Timeouts()


@dataclass(frozen=True, slots=True)
class External:
    """A provider outside, which answers instead of Pods."""

    url: str
    place: Place
    #: Its own name of the model.
    model: str
    #: Secret, and key inside it, with what it knows us by; None: it wants nothing.
    secret: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Replica:
    """A Pod that takes requests now, or a provider outside."""

    id: str
    pod: str
    endpoint: Endpoint
    outside: External | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a ModelDeployment says, before it is known where it runs."""

    namespace: str
    name: str
    served_name: str
    aliases: tuple[str, ...] = ()
    #: By which its weights also answer. Of one of them, `adapter` says which; its names are the
    #: model's with the adapter's behind.
    adapters: tuple[str, ...] = ()
    adapter: str = ""
    task: str = "chat"
    timeouts: Timeouts = UNSAID
    retries: RetryPolicy = RetryPolicy()
    breaker: BreakerPolicy = BreakerPolicy()
    #: Names of ModelDeployments of the same namespace.
    fallbacks: tuple[str, ...] = ()
    #: Other namespaces whose keys may use it; * is all of them.
    opened_to: frozenset[str] = frozenset()
    limits: Limits = UNLIMITED
    external: External | None = None
    cache: CachePolicy | None = None
    #: Another one when the spec has changed.
    version: str = ""
    created: int = 0
    family: str = ""
    tags: tuple[str, ...] = ()
    context_length: int | None = None
    description: str = ""
    suspended: bool = False
    wanted: int = 1
    #: Requests that a replica works on at once.
    at_once: int = 32
    #: Reason of the Ready condition while it is not True.
    reason: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.served_name, *self.aliases)

    @property
    def upstream_name(self) -> str:
        """By which whoever answers knows it."""
        return self.served_name if self.external is None else self.external.model


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be asked for, with the replicas that are ready."""

    spec: ModelSpec
    replicas: tuple[Replica, ...]
    #: namespace/name of the ModelDeployment: the audience of tokens, the label of metrics.
    ref: str
    #: The same by each of its adapters: other names, and all else is the model's.
    adapters: tuple[Model, ...] = ()


@dataclass(frozen=True, slots=True)
class PodState:
    """A server Pod: whose it is, and how to reach it if it takes requests."""

    namespace: str
    model: str
    replica: Replica | None
    #: Its node is not heard of; what the Pod said last is that it takes requests.
    unheard: bool = False


@dataclass(frozen=True, slots=True)
class KeySpec:
    """An APIKey with the rows that its status holds."""

    principal: ApiKey
    rows: Mapping[str, Row[ApiKey]]


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything that a request needs to know of the cluster."""

    keyring: Keyring[ApiKey] = field(default_factory=lambda: Keyring({}))
    key_uids: frozenset[str] = frozenset()
    by_name: Mapping[tuple[str, str], Model] = field(default_factory=dict)
    by_namespace: Mapping[str, tuple[Model, ...]] = field(default_factory=dict)
    by_ref: Mapping[str, Model] = field(default_factory=dict)
    replica_ids: frozenset[str] = frozenset()


def assemble(
    keys: Iterable[KeySpec], models: Iterable[ModelSpec], pods: Iterable[PodState]
) -> Catalog:
    """One state of the cluster.

    When two ModelDeployments of a namespace claim a name, the older one has it, and a served
    name goes before an alias, which goes before a name with an adapter's behind: the same
    everywhere, whatever the order of events.

    Replicas on nodes that Kubernetes does not hear of are tried when there is no other: after an
    outage of the API server that is all of them, and they serve as before.
    """
    rows: dict[str, Row[ApiKey]] = {}
    uids: set[str] = set()
    for key in keys:
        rows.update(key.rows)
        uids.add(key.principal.uid)
    heard: dict[tuple[str, str], list[Replica]] = {}
    unheard: dict[tuple[str, str], list[Replica]] = {}
    for pod in pods:
        if pod.replica is not None:
            found = unheard if pod.unheard else heard
            found.setdefault((pod.namespace, pod.model), []).append(pod.replica)
    by_age = sorted(models, key=lambda spec: (spec.created, spec.namespace, spec.name))
    known = []
    for spec in by_age:
        owner = (spec.namespace, spec.name)
        known.append(_model(spec, _outside(spec) or heard.get(owner) or unheard.get(owner) or []))
    by_namespace: dict[str, list[Model]] = {}
    for model in known:
        by_namespace.setdefault(model.spec.namespace, []).append(model)
    return Catalog(
        keyring=Keyring(rows),
        key_uids=frozenset(uids),
        by_name=_names(known),
        by_namespace={namespace: tuple(found) for namespace, found in by_namespace.items()},
        by_ref={model.ref: model for model in known},
        replica_ids=frozenset(replica.id for model in known for replica in model.replicas),
    )


def _outside(spec: ModelSpec) -> list[Replica]:
    """Its only replica, if that is a provider. Another URL is another replica."""
    external = spec.external
    if external is None or spec.suspended:
        return []
    place, name = external.place, f"external/{spec.name}"
    found = f"{spec.namespace}/{spec.name}@{external.url}"
    return [Replica(found, name, Endpoint(place.host, place.port), external)]


def _model(spec: ModelSpec, replicas: list[Replica]) -> Model:
    replicas.sort(key=lambda replica: replica.id)
    ready, ref = tuple(replicas), f"{spec.namespace}/{spec.name}"
    adapted = tuple(Model(_adapted(spec, adapter), ready, ref) for adapter in spec.adapters)
    return Model(spec=spec, replicas=ready, ref=ref, adapters=adapted)


def _adapted(spec: ModelSpec, adapter: str) -> ModelSpec:
    return replace(
        spec,
        served_name=adapters.served_name(spec.served_name, adapter),
        aliases=tuple(adapters.served_name(alias, adapter) for alias in spec.aliases),
        adapter=adapter,
        adapters=(),
    )


def _names(models: list[Model]) -> dict[tuple[str, str], Model]:
    names: dict[tuple[str, str], Model] = {}
    for model in models:
        names.setdefault((model.spec.namespace, model.spec.served_name), model)
    for model in models:
        for alias in model.spec.aliases:
            names.setdefault((model.spec.namespace, alias), model)
    for model in models:
        for adapted in model.adapters:
            for name in adapted.spec.names:
                names.setdefault((model.spec.namespace, name), adapted)
    return names
