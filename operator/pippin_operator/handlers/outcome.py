"""How a run ended, as a next try. The only place that catches everything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter

import structlog

from ..api.resources import APIKEY, MODELDEPLOYMENT, Ref
from ..errors import ApiError, InvalidSpec, NotYet, Refused
from ..reconcile import apikey, modeldeployment
from ..reconcile.deps import Deps
from ..telemetry import Metrics
from ..workqueue import DONE, FAILED, Outcome

log = structlog.get_logger(__name__)


def worker(deps: Deps, metrics: Metrics) -> Callable[[Ref], Awaitable[Outcome]]:
    """What the queue runs for a key."""

    async def work(ref: Ref) -> Outcome:
        started = perf_counter()
        with structlog.contextvars.bound_contextvars(object=str(ref)):
            ended, outcome = await _guarded(deps, ref)
        metrics.reconciles.labels(ref.plural, ended).inc()
        metrics.seconds.labels(ref.plural).observe(perf_counter() - started)
        return outcome

    return work


async def _guarded(deps: Deps, ref: Ref) -> tuple[str, Outcome]:
    try:
        again = await _reconcile(deps, ref)
    except (InvalidSpec, Refused) as error:
        log.warning("reconcile.invalid_spec", why=str(error))
        return "invalid", DONE
    except NotYet as error:
        log.info("reconcile.not_yet", why=str(error), after=error.after)
        return "not_yet", Outcome(again=error.after)
    except ApiError as error:
        log.warning("reconcile.refused", status=error.status, why=str(error))
        return "refused", FAILED
    except Exception:
        log.exception("reconcile.failed")
        return "failed", FAILED
    return "done", Outcome(again=again)


async def _reconcile(deps: Deps, ref: Ref) -> float | None:
    if ref.plural == MODELDEPLOYMENT.plural:
        return await modeldeployment.reconcile(deps, ref)
    assert ref.plural == APIKEY.plural
    return await apikey.reconcile(deps, ref)
