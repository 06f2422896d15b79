"""What keys have used, from the gateways into the status of the APIKeys, again and again."""

from __future__ import annotations

import asyncio
import base64
from collections import defaultdict
from collections.abc import Mapping

import structlog

from pippin_contract import apikeys, wire
from pippin_contract.usage import UsageReport

from .. import keychain
from ..api.resources import APIKEY, POD, Manifest
from ..errors import ApiError, Conflict, InvalidSpec, NotFound
from ..gateways import Gateways, Silent, where
from ..status.usage import Reading, derive
from . import ownsecrets
from .deps import Deps

log = structlog.get_logger(__name__)

#: Who writes these fields: the status that is settled with the spec is another's.
MANAGER = f"{wire.MANAGER}-usage"
#: Statuses that are written at once.
_AT_ONCE = 8


async def token(deps: Deps) -> str:
    """What opens the gateways' /admin; made when there is none."""

    def make() -> Mapping[str, str]:
        made = apikeys.mint(deps.random_bytes).key
        return {wire.ADMIN_TOKEN: base64.b64encode(made.encode()).decode()}

    secret = await ownsecrets.ensure(deps.cluster, deps.settings.namespace, wire.ADMIN_SECRET, make)
    held = keychain.entry(secret, wire.ADMIN_TOKEN)
    if held is None:
        raise InvalidSpec(
            f"Secret {wire.ADMIN_SECRET} holds no text under {wire.ADMIN_TOKEN}:"
            " delete the Secret, and it is made anew"
        )
    return held


async def collect(deps: Deps) -> None:
    """Ask every gateway, add up, write what changed."""
    found: dict[str, list[Reading]] = defaultdict(list)
    for report in await _reports(deps):
        for used in report.keys:
            found[used.uid].append(Reading(report.source, used))
    if not found:
        return
    slots = asyncio.Semaphore(_AT_ONCE)

    async def settle(live: Manifest) -> None:
        async with slots:
            await _write(deps, live, found[live["metadata"]["uid"]])

    known = [live for ref in deps.store.refs(APIKEY.plural) if (live := deps.store.get(ref))]
    async with asyncio.TaskGroup() as group:
        for live in known:
            if live["metadata"]["uid"] in found:
                group.create_task(settle(live))


async def _reports(deps: Deps) -> list[UsageReport]:
    """One of each source: gateways at one Redis tell the same, and later ones tell more."""
    pods, _ = await deps.cluster.list(POD, wire.GATEWAY_POD_SELECTOR, deps.settings.namespace)
    reports: dict[str, UsageReport] = {}
    async with Gateways(deps.installation.admin_token) as gateways:
        for pod in pods:
            name = pod["metadata"]["name"]
            try:
                found = where(pod)
                if found is not None:
                    report = await gateways.usage(found)
                    reports[report.source] = report
            except Silent as error:
                log.warning("usage.not_read", gateway=name, why=str(error))
    return list(reports.values())


async def _write(deps: Deps, live: Manifest, readings: list[Reading]) -> None:
    old = live.get("status") or {}
    status = derive(old, [row["id"] for row in old.get("keys", ())], readings, deps.now())
    if status == {name: old[name] for name in status if name in old}:
        return
    try:
        written = await deps.cluster.apply_status(APIKEY, live, status, MANAGER)
    except (NotFound, Conflict) as gone:
        log.debug("usage.not_written", why=str(gone))
        return
    except ApiError as error:
        # What is not written now is in the next sums.
        log.warning("usage.not_written", key=live["metadata"]["name"], why=str(error))
        return
    deps.store.put(APIKEY, written)
