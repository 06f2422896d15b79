"""`pippin-operator run`: arguments, settings, wiring. The only place that wires."""

from __future__ import annotations

import asyncio
import secrets
import sys
from datetime import UTC, datetime

import structlog
from pydantic import ValidationError

from pippin_contract import __version__
from pippin_edge import logs

from .cluster import Cluster, Credentials
from .handlers.lifecycle import Lifecycle
from .reconcile.deps import Deps, Installation
from .settings import Settings
from .store import Store
from .telemetry import Metrics, application, served

USAGE = """\
usage: pippin-operator run [--namespace NS] [--gateway-url URL] [--server-image IMAGE] …
       pippin-operator --version

Settings come from the environment (PIPPIN_OPERATOR_*) and from flags; `run --help` lists them."""

log = structlog.get_logger("pippin_operator")


def main() -> None:
    sys.exit(_main(sys.argv[1:]))


def _main(argv: list[str]) -> int:
    if argv == ["--version"]:
        print(__version__)
        return 0
    if argv[:1] != ["run"]:
        print(USAGE, file=sys.stderr)
        return 0 if argv in (["-h"], ["--help"]) else 64
    try:
        settings = Settings(_cli_parse_args=argv[1:], _cli_prog_name="pippin-operator run")
    except ValidationError as error:
        for problem in error.errors():
            print(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}", file=sys.stderr)
        return 78
    logs.configure(settings.log_level)
    asyncio.run(_run(settings))
    log.info("operator.stopped")
    return 0


async def _run(settings: Settings) -> None:
    metrics = Metrics()
    credentials = Credentials(settings.kubeconfig)
    cluster = Cluster(credentials, metrics)
    deps = Deps(
        settings=settings,
        cluster=cluster,
        store=Store(),
        installation=Installation(),
        now=lambda: datetime.now(UTC),
        random_bytes=secrets.token_bytes,
    )
    lifecycle = Lifecycle(deps, credentials, metrics)
    host, port = settings.listen()
    app = application(metrics, lambda: lifecycle.synced)
    async with served(app, host, port):
        log.info("operator.started", version=__version__, host=host, port=port)
        try:
            await lifecycle.run()
        finally:
            await cluster.close()


if __name__ == "__main__":
    main()
