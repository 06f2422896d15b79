"""The ServiceMonitor by which the Prometheus operator scrapes the servers."""

from __future__ import annotations

from pippin_contract import wire

from ..api.resources import SERVICEMONITOR, Manifest
from . import names
from .context import Model, RenderContext


def monitor(model: Model, ctx: RenderContext) -> tuple[Manifest, ...]:
    """Nothing where the API is not installed: the status says so."""
    wanted = model.spec.monitoring
    if not (wanted.enabled and ctx.monitoring_api):
        return ()
    manifest = {
        "apiVersion": SERVICEMONITOR.api_version,
        "kind": SERVICEMONITOR.kind,
        "metadata": names.metadata(model, model.name, **wanted.labels),
        "spec": {
            "selector": {"matchLabels": names.selector(model)},
            "endpoints": [
                {"port": wire.HTTP_PORT_NAME, "path": "/metrics", "interval": wanted.interval}
            ],
        },
    }
    return (manifest,)
