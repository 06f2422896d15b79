"""What nodes complain of while they make a Pod: told by events, and nowhere in the Pod itself."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from ..api.resources import Manifest
from ..errors import ApiError
from ..status.pods import Trouble, told_by
from .deps import Deps

log = structlog.get_logger(__name__)


async def complaint(deps: Deps, creating: Sequence[Manifest]) -> Trouble | None:
    """The newest one about the first of these Pods that has any."""
    for pod in creating:
        metadata = pod["metadata"]
        try:
            warnings = await deps.cluster.warnings(metadata["namespace"], metadata["uid"])
        except ApiError as error:
            # It makes a status clearer, and is read again soon.
            log.warning("events.not_read", why=str(error))
            return None
        placed = [event for event in warnings if event.get("reason") != "FailedScheduling"]
        if placed:
            return told_by(placed[-1])
    return None
