"""argv -> Settings -> parts -> app -> serve. The only place that wires the process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from typing import Any

import structlog
import uvloop

from pippin_contract import __version__, addresses
from pippin_contract.wire import EXIT_CONFIG
from pippin_edge import logs
from pippin_edge.access_log import LineWriter
from pippin_edge.limits.memory import MemoryStore
from pippin_edge.serving import Drain, bind, serve, stop_on_signals

from . import answers
from .admin import AdminToken
from .answers import SharedAnswers
from .app import Parts, create_app
from .cache import ResponseCache
from .catalog.credentials import ProviderKeys
from .catalog.keeper import Keeper
from .catalog.model import Catalog
from .catalog.snapshot import PURPOSE
from .catalog.store import CatalogStore
from .catalog.watch import Cluster, watch_all
from .ledger.ledger import Ledger, LocalLedger, SharedLedger
from .limiting.shared import LocalStore, SharedStore, Store
from .routing.balance import Balance
from .routing.breaker import Breakers
from .settings import InvalidSettings, Settings, parse, typed
from .signing import SigningKey
from .telemetry import Telemetry
from .tracing.exporter import Exporter
from .upstream.outside import Outside, Trust
from .upstream.pool import Pool
from .waiting import Waiting

log = structlog.get_logger("pippin.gateway")


def main() -> None:
    """Entry point. Exit code 78: the configuration is wrong."""
    asked = typed(sys.argv[1:])
    if asked.command == "check":
        from .check import check  # who serves has no room for it

        sys.exit(check(asked.paths, asked.namespace))
    try:
        settings = parse(asked.config)
    except InvalidSettings as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_CONFIG)
    logs.configure(settings.config.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(run(settings)))


async def run(settings: Settings) -> int:
    """Until SIGTERM; the exit code."""
    try:
        listener = bind(settings.host, settings.port)
        cluster = Cluster.load(settings.kubeconfig)
        outside = _outside(settings, cluster)
    except (OSError, ValueError) as error:
        log.error("gateway.cannot_start", why=str(error))
        return 1
    stop = asyncio.Event()
    stop_on_signals(stop)
    telemetry, pool = Telemetry(), Pool()
    balance = Balance(Breakers(), secrets.randbits(64))
    name, waiting = secrets.token_hex(8), Waiting(balance.load)  # another name each time
    limits, ledger = _counting(settings, name)
    signing, admin = SigningKey(settings.signing_dir), AdminToken(settings.admin_dir)
    shared = _shared_answers(settings, signing, name)
    cache = ResponseCache(time.monotonic, shared=shared)

    def changed(catalog: Catalog) -> None:
        pool.retain(catalog.replica_ids)
        balance.retain(catalog, time.monotonic())
        ledger.retain(catalog.key_uids)
        cache.retain(frozenset(catalog.by_ref))
        telemetry.catalog_changed(catalog)
        waiting.look(catalog)

    store = CatalogStore(changed, max_staleness=settings.config.max_staleness_seconds)
    traces = settings.config.traces_url
    exporter = Exporter(traces, telemetry.traces_dropped.inc) if traces else None
    keeper = _keeper(settings, store, signing, telemetry)
    provider_keys = ProviderKeys()
    writer = LineWriter(_stdout)
    gateway = create_app(
        settings.config,
        Parts(
            store=store,
            pool=pool,
            balance=balance,
            tokens=signing,
            provider_keys=provider_keys,
            outside=outside,
            telemetry=telemetry,
            limits=limits,
            ledger=ledger,
            cache=cache,
            waiting=waiting,
            exporter=exporter,
            admin=admin,
            can_sign=lambda: signing.ready,
            name=socket.gethostname(),
            write_log=writer if settings.config.access_log else None,
        ),
    )

    def draining() -> None:
        gateway.health.draining = True
        log.info("gateway.draining")

    log.info("gateway.started", version=__version__, host=settings.host, port=settings.port)
    _settle_memory()
    drain = Drain(timeout=settings.config.drain_timeout_seconds, on_draining=draining)
    files = signing.file.follow(), admin.file.follow()
    watching = watch_all(cluster, store, provider_keys, settings.config.namespace)
    work = [watching, keeper.run(), limits.run(), ledger.run()]
    if exporter is not None:
        work.append(exporter.run())
    if shared is not None:
        work.append(shared.run())
    async with _background(*files, *work):
        await serve(gateway.app, listener, stop, drain)
        await ledger.close()
        await keeper.keep()
    if exporter is not None:
        await exporter.close()
    pool.close()
    await writer.close()
    log.info("gateway.stopped")
    return 0


@contextlib.asynccontextmanager
async def _background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Done while the body runs; a bug in one ends it all."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in work]
        yield
        for task in tasks:
            task.cancel()


def _counting(settings: Settings, name: str) -> tuple[Store, Ledger]:
    """Where limits and usage are counted."""
    local = MemoryStore()
    if settings.redis is None:
        return LocalStore(local), LocalLedger()
    shared = SharedStore(settings.redis, local, gateway=name, away=settings.config.redis_away)
    return shared, SharedLedger(shared.redis, gateway=name)


def _shared_answers(settings: Settings, signing: SigningKey, name: str) -> SharedAnswers | None:
    """What the gateways keep for each other."""
    if settings.redis is None:
        return None
    key = partial(signing.derived, answers.PURPOSE)
    return SharedAnswers(settings.redis, key, time.monotonic, gateway=name)


def _keeper(
    settings: Settings, store: CatalogStore, signing: SigningKey, telemetry: Telemetry
) -> Keeper:
    """Of the snapshot on disk."""
    keeper = Keeper(settings.snapshot_dir, store, lambda: signing.derived(PURPOSE))
    telemetry.snapshot_written.set_function(lambda: keeper.written_at)
    telemetry.snapshot_failing.set_function(lambda: float(keeper.failing))
    return keeper


def _outside(settings: Settings, cluster: Cluster) -> Outside:
    """Raises OSError for a file that holds no certificates."""
    networks = addresses.networks(settings.config.provider_networks)
    if settings.provider_ca.exists():
        Trust(settings.provider_ca).context()
    return Outside(networks, cluster.spot, settings.provider_ca)


def _stdout(chunk: bytes) -> None:
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def _settle_memory() -> None:
    """What is loaded now stays: the collector need not look at it again, nor so often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


if __name__ == "__main__":
    main()
