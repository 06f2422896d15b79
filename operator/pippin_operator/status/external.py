"""What there is to say of a model that a provider outside serves: no Pods, no weights."""

from __future__ import annotations

from ipaddress import ip_address

from pippin_contract import addresses, providers

from ..api.engine import External
from ..api.modeldeployment import ModelDeploymentSpec
from .conditions import Verdict, no, unknown, yes
from .pods import Trouble

SCHEDULED = yes("Scheduled", "NothingToPlace")
AVAILABLE = unknown("ModelAvailable", "External", "whether the provider has it shows when asked")
UNMONITORED = no("MonitoringReady", "Disabled", "there are no Pods to scrape: see the gateway's")
SETTLED = no("Progressing", "Settled", "nothing is under way")


def workload_ready(
    spec: ModelDeploymentSpec, external: External, trouble: Trouble | None
) -> Verdict:
    """Whether everything is there that the gateway needs. Nobody asks the provider for it."""
    kind = "WorkloadReady"
    found = trouble or _of_url(external.url)
    if found is not None:
        return no(kind, found.reason, found.message)
    if spec.suspend:
        return no(kind, "Suspended", "suspend is set: the provider is not asked")
    return yes(kind, "External", _told(spec, external))


def ready(workload: Verdict) -> Verdict:
    return Verdict("Ready", workload.status, workload.reason, workload.message)


def _of_url(url: str) -> Trouble | None:
    """An object older than today's schema may have another; its words are not repeated, since it
    could hold credentials."""
    try:
        host = providers.parse(url).host
    except ValueError as error:
        return Trouble("InvalidURL", f"spec.engine.external.url: {error}")
    try:
        if addresses.never(ip_address(host)):
            return Trouble("AddressForbidden", f"spec.engine.external.url: nobody asks {host}")
    except ValueError:
        pass  # a name: the gateway looks at its addresses
    return None


def _told(spec: ModelDeploymentSpec, external: External) -> str:
    asked = spec.limits.model_dump(exclude_none=True) if spec.limits else {}
    limits = providers.limits({"provider": external.provider}, asked)
    words = {"rpm": "requests a minute", "tpm": "tokens a minute", "concurrency": "at once"}
    most = ", ".join(f"{limits[name]} {unit}" for name, unit in words.items() if name in limits)
    where = providers.parse(external.url).authority
    return f"requests go to {where} ({external.provider}); all callers together: {most}"
