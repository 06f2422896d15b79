"""Wires one node together and keeps it going until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import structlog

from pippin_contract import __version__
from pippin_contract.units import quantity

from . import certificates, hardware
from .access import Access
from .certificates import NotSigned
from .client import ApiError, Client, Unreachable
from .context import Context, inherited
from .events import Recorder
from .join import CLIENT_BUNDLE, KUBECONFIG, joined_name
from .kubelet_api import KubeletApi
from .lease import LeaseKeeper
from .node import NodeKeeper
from .pods import PodManager
from .policy import Rules
from .ports import PortBook
from .records import write_private
from .settings import Settings
from .sources import Sources

log = structlog.get_logger(__name__)

SERVING_BUNDLE = "serving.pem"
#: How often certificates are looked at, seconds.
CERTIFICATE_CHECK_SECONDS = 3600.0


class Agent:
    """One node. `run` returns after SIGTERM or SIGINT; Pods go on without it."""

    def __init__(self, client: Client, settings: Settings, name: str, environ: Mapping[str, str]):
        self.settings = settings
        self.name = name
        self.client = client
        budget = int(quantity(settings.memory_budget)) if settings.memory_budget else None
        self.machine = hardware.machine(settings.os, budget)
        self.context = self._context(environ)
        self.pods = PodManager(self.context, settings.root)
        self.access = Access(client, name)

    def _context(self, environ: Mapping[str, str]) -> Context:
        settings = self.settings

        def now() -> datetime:
            return datetime.now(UTC)

        return Context(
            client=self.client,
            settings=settings,
            node=self.name,
            rules=Rules(settings.images, __version__, settings.allow_host_path),
            recorder=Recorder(self.client, self.name, now),
            sources=Sources(self.client, max_age=settings.resync_seconds * 0.9),
            ports=PortBook(settings.port_first, settings.port_last),
            facts={
                "cpu": str(self.machine.cpus),
                "memory": str(self.machine.pod_memory),
                "ephemeral-storage": str(hardware.disk(settings.root)[0]),
                "hostIP": settings.host_address,
            },
            inherited=inherited(environ, settings.pass_env),
            now=now,
        )

    async def run(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if os.geteuid() == 0:
            log.warning("agent.root", hint="Pods run as root too: prefer a user of its own")
        api = KubeletApi(self.context, self.pods, self.access, self.client.ca_bytes())
        api.serve_with(self._serving_bundle())
        await api.start()
        self.pods.adopt()
        work = [
            asyncio.create_task(self._be_a_node(api.port), name="node"),
            asyncio.create_task(self.pods.run(), name="pods"),
            asyncio.create_task(self.context.recorder.run(), name="events"),
            asyncio.create_task(self._certificates(api), name="certificates"),
        ]
        stopped = asyncio.create_task(stop.wait(), name="stop")
        log.info("agent.started", node=self.name, server=self.client.server, port=api.port)
        try:
            done, _ = await asyncio.wait([*work, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # work never ends: what comes here is a bug, and ends the agent
        finally:
            for task in (*work, stopped):
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            await self.pods.stop()
            await api.stop()
            log.info("agent.stopped", node=self.name)

    async def _be_a_node(self, port: int) -> None:
        keeper = NodeKeeper(self.context, self.machine, port)
        while True:
            try:
                uid = await keeper.register()
                break
            except (ApiError, Unreachable) as error:
                log.warning("node.register_failed", error=str(error))
                await asyncio.sleep(self.settings.retry_seconds)
        lease = LeaseKeeper(self.context, uid)
        await asyncio.gather(keeper.run(), lease.run())

    @property
    def _names(self) -> list[str]:
        return [self.name, self.settings.host_address]

    def _serving_bundle(self) -> bytes:
        """The signed certificate of an earlier run, else one of our own for the beginning."""
        path = self.settings.root / SERVING_BUNDLE
        if path.exists():
            bundle = path.read_bytes()
            if not self._stale(bundle):
                return bundle
        return certificates.self_signed(self.name, self._names, certificates.utc_now())

    def _stale(self, bundle: bytes) -> bool:
        now = certificates.utc_now()
        return certificates.renewal_due(bundle, now) or not certificates.same_names(
            bundle, self._names
        )

    async def _certificates(self, api: KubeletApi) -> None:
        """Keep both certificates good, for ever."""
        while True:
            pause = CERTIFICATE_CHECK_SECONDS
            try:
                await self._renew_serving(api)
                await self._renew_client()
            except (ApiError, Unreachable, NotSigned) as error:
                log.warning("certificates.failed", error=str(error))
                pause = self.settings.retry_seconds
            await asyncio.sleep(pause)

    async def _renew_serving(self, api: KubeletApi) -> None:
        path = self.settings.root / SERVING_BUNDLE
        if path.exists() and not self._stale(path.read_bytes()):
            return
        bundle = await self._obtain(certificates.SERVING_SIGNER, self._names)
        write_private(path, bundle)
        api.serve_with(bundle)
        log.info("certificates.serving_signed")

    async def _renew_client(self) -> None:
        path = self.settings.root / CLIENT_BUNDLE
        if not certificates.renewal_due(path.read_bytes(), certificates.utc_now()):
            return
        write_private(path, await self._obtain(certificates.CLIENT_SIGNER, []))
        await self.client.reload(self.settings.root / KUBECONFIG)
        log.info("certificates.client_renewed")

    async def _obtain(self, signer: str, names: list[str]) -> bytes:
        return await certificates.obtain(
            self.client, signer, self.name, names, self.settings.csr_wait_seconds
        )


async def run_agent(settings: Settings, environ: Mapping[str, str]) -> None:
    """Run the node that has joined in this root. Raises NotJoined."""
    name = joined_name(settings.root)
    client = await Client.from_kubeconfig(Path(settings.root / KUBECONFIG))
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await Agent(client, settings, name, environ).run()
    finally:
        await client.close()
