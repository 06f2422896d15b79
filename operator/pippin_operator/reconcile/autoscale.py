"""Replicas by load: every gateway is asked again and again, and who needs other Pods is woken.

A number that was decided is written where all of a ModelDeployment is, by its own run: see
`modeldeployment.reconcile`. Here nothing is written but the event.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import structlog
from pydantic import ValidationError

from pippin_contract import wire
from pippin_contract.demand import DemandReport, ModelDemand
from pippin_contract.units import seconds

from ..api.pods import Autoscaling, Probes
from ..api.resources import MODELDEPLOYMENT, POD, Manifest, Ref
from ..errors import ApiError
from ..gateways import Gateways, Silent, where
from ..scaling import Decision, Demand, Policy, Running
from ..status import pods
from ..status.conditions import Flip
from .deps import Deps
from .modeldeployment import workload_replicas
from .write import post

log = structlog.get_logger(__name__)

#: Seconds for a gateway's answer: a late one is as good as none.
_WITHIN = 4.0
#: How the API server is called among those that do not tell.
_API_SERVER = "the API server"


@dataclass(frozen=True)
class _Scaled:
    """A ModelDeployment that is scaled here, and its workload."""

    ref: Ref
    live: Manifest
    policy: Policy
    running: Running

    @property
    def uid(self) -> str:
        return str(self.live["metadata"]["uid"])


class Autoscaler:
    """Belongs to the one operator that acts. What it remembers lies in `deps.scales`."""

    def __init__(
        self, deps: Deps, wake: Callable[[Ref], object], silent: Callable[[float], object]
    ) -> None:
        self._deps = deps
        self._wake = wake
        self._tell_silent = silent
        self._silent: dict[str, str] = {}

    async def look(self) -> None:
        """Ask, judge, wake. Costs nothing while no model is scaled."""
        scaled = list(_scaled(self._deps))
        self._deps.scales.retain({one.uid for one in scaled})
        if not scaled:
            return
        reports, silent = await self._ask()
        self._note(silent)
        demands, whole = _sums(reports), bool(reports) and not silent
        now = asyncio.get_running_loop().time()
        for one in scaled:
            demand = _demand(demands[f"{one.ref.namespace}/{one.ref.name}"], whole=whole)
            record = self._deps.scales.record(one.uid)
            decision = record.judge(one.policy, demand, one.running, now)
            if decision is not None:
                await self._scale(one, decision)

    async def _ask(self) -> tuple[list[DemandReport], dict[str, str]]:
        """What gateways told, and why which did not."""
        namespace = self._deps.settings.namespace
        try:
            found, _ = await self._deps.cluster.list(POD, wire.GATEWAY_POD_SELECTOR, namespace)
        except ApiError as error:
            return [], {_API_SERVER: str(error)}
        token, silent = self._deps.installation.admin_token, dict[str, str]()

        async def told(pod: Manifest) -> DemandReport | None:
            try:
                at = where(pod)
                return None if at is None else await gateways.demand(at)
            except Silent as error:
                silent[pod["metadata"]["name"]] = str(error)
                return None

        async with Gateways(token, within=_WITHIN) as gateways:
            reports = await asyncio.gather(*map(told, found))
        return [report for report in reports if report is not None], silent

    def _note(self, silent: dict[str, str]) -> None:
        """Once for each that falls silent, not at every look."""
        for name in silent.keys() - self._silent.keys():
            log.warning("autoscale.not_told", gateway=name, why=silent[name])
        self._silent = silent
        self._tell_silent(len(silent))

    async def _scale(self, one: _Scaled, decision: Decision) -> None:
        known, has = self._deps.scales.wanted(one.uid), one.running.replicas
        if known != decision.replicas:
            self._deps.scales.decide(one.uid, decision.replicas)
            reason = "ScaledUp" if decision.replicas > has else "ScaledDown"
            message = f"from {has} to {decision.replicas} replicas: {decision.why}"
            log.info("autoscale.decided", object=str(one.ref), reason=reason, why=message)
            self._wake(one.ref)
            flip = Flip("Autoscaling", reason, message, bad=False)
            await post(self._deps, MODELDEPLOYMENT, one.live, flip)


def _scaled(deps: Deps) -> Iterator[_Scaled]:
    for ref in deps.store.refs(MODELDEPLOYMENT.plural):
        live = deps.store.get(ref)
        policy = _policy(live, deps.settings.autoscale_seconds) if live else None
        replicas = workload_replicas(deps, ref) if policy else None
        if live is not None and policy is not None and replicas is not None:
            yield _Scaled(ref, live, policy, _running(deps, ref, replicas))


def _policy(live: Manifest, looks_every: float) -> Policy | None:
    """None when it is not scaled here: without such a policy, suspended, or on its way out."""
    spec = live.get("spec") or {}
    asked = spec.get("autoscaling")
    if not asked or spec.get("suspend") or live["metadata"].get("deletionTimestamp"):
        return None
    try:
        scaling = Autoscaling.model_validate(asked)
        startup = seconds(Probes.model_validate(spec.get("probes") or {}).startup_timeout)
    except ValidationError:
        return None  # the run of the whole object tells what is wrong with it
    if scaling.provider != "builtin":
        return None
    return Policy.of(scaling, startup, looks_every)


def _running(deps: Deps, ref: Ref, replicas: int) -> Running:
    alive = [
        pod
        for pod in deps.store.children(ref, POD.plural)
        if not pods.is_ending(pod) and not pods.is_over(pod)
    ]
    return Running(
        replicas=replicas,
        ready=sum(map(pods.is_ready, alive)),
        failed=any(pods.trouble(pod) is not None for pod in alive),
    )


def _sums(reports: Iterable[DemandReport]) -> dict[str, list[ModelDemand]]:
    found: dict[str, list[ModelDemand]] = defaultdict(list)
    for report in reports:
        for model in report.models:
            found[model.model].append(model)
    return found


def _demand(told: list[ModelDemand], *, whole: bool) -> Demand:
    return Demand(
        in_flight=sum(one.in_flight for one in told),
        waiting=sum(one.waiting for one in told),
        asked_ago=min((one.asked_seconds_ago for one in told), default=None),
        whole=whole,
    )
