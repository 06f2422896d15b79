"""All children of a ModelDeployment, in the order in which they are applied."""

from __future__ import annotations

import json
from hashlib import sha256

from ..api.honored import blocking, provider
from ..api.resources import Manifest
from . import names
from .context import Model, RenderContext
from .monitoring import monitor
from .serverconfig import config_map
from .service import service
from .workload import workload


def render(model: Model, ctx: RenderContext) -> tuple[Manifest, ...]:
    """Nothing when a field without which nothing could run is not supported, nor for a provider
    outside."""
    if blocking(model.spec) or provider(model.spec):
        return ()
    children = (
        config_map(model, ctx),
        service(model),
        workload(model, ctx),
        *monitor(model, ctx),
    )
    return tuple(stamped(child) for child in children)


def stamped(manifest: Manifest) -> Manifest:
    """The manifest with its own hash as an annotation."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    metadata = manifest["metadata"]
    annotations = {
        **metadata.get("annotations", {}),
        names.MANIFEST_HASH: sha256(text.encode()).hexdigest()[:16],
    }
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}
