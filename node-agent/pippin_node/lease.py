"""The node's heartbeat: its Lease in kube-node-lease, renewed four times in its duration."""

from __future__ import annotations

import asyncio
from datetime import datetime

import structlog

from .client import MERGE, ApiError, Unreachable
from .context import Context
from .records import Json

log = structlog.get_logger(__name__)

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


def lease_object(node: str, uid: str, duration: int, now: datetime) -> Json:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": node,
            "namespace": "kube-node-lease",
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid},
            ],
        },
        "spec": {
            "holderIdentity": node,
            "leaseDurationSeconds": duration,
            "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        },
    }


class LeaseKeeper:
    """Renews the Lease; makes it where there is none."""

    def __init__(self, context: Context, uid: str) -> None:
        self.client = context.client
        self.node = context.node
        self.duration = context.settings.lease_seconds
        self.now = context.now
        self.uid = uid

    async def renew(self) -> None:
        wanted = lease_object(self.node, self.uid, self.duration, self.now())
        try:
            await self.client.patch(f"{LEASES}/{self.node}", wanted, MERGE)
        except ApiError as error:
            if error.status != 404:
                raise
            await self.client.create(LEASES, wanted)

    async def run(self) -> None:
        """For ever; a failed renewal is tried again sooner."""
        while True:
            pause = self.duration / 4
            try:
                await self.renew()
            except (ApiError, Unreachable) as error:
                log.warning("lease.renew_failed", error=str(error))
                pause = min(pause, 2.0)
            await asyncio.sleep(pause)
