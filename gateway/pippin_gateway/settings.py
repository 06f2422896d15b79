"""What the process is told: one file, one flag, and where a native Pod's things lie."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pippin_contract import __version__, gatewayconfig, native
from pippin_contract.gatewayconfig import GatewayConfig
from pippin_contract.wire import GATEWAY_CONFIG_FILE, HTTP_PORT_NAME

from .limiting.redis import Address, address

#: All interfaces: a Pod's port is reached from outside it.
ANY_HOST = "0.0.0.0"


class InvalidSettings(Exception):
    """Says all that is wrong, and where."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Resolved: paths and ports as they are on this machine."""

    config: GatewayConfig
    host: str
    port: int
    signing_dir: Path
    admin_dir: Path
    snapshot_dir: Path
    #: Certificates of authorities that sign for providers, if it is there.
    provider_ca: Path
    #: None: limits are counted by this gateway alone.
    redis: Address | None
    #: Named by the environment; None: the Pod's service account, then ~/.kube/config.
    kubeconfig: Path | None


def typed(argv: Sequence[str]) -> argparse.Namespace:
    """Leaves by SystemExit on --help and unknown flags."""
    parser = argparse.ArgumentParser(
        prog="pippin-gateway", description="The OpenAI endpoint in front of Pippin's models."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="serve until SIGTERM")
    run.add_argument("--config", default=GATEWAY_CONFIG_FILE, help="JSON file (GatewayConfig)")
    words = "say whether manifests would work together; without a cluster"
    check = commands.add_parser("check", help=words, description=words[0].upper() + words[1:] + ".")
    check.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a file, a directory with all below it, or - for standard input",
    )
    check.add_argument(
        *("-n", "--namespace"), default="default", help="of objects that name none (default)"
    )
    return parser.parse_args(argv)


def parse(file: str, environ: Mapping[str, str] = os.environ) -> Settings:
    """Of that configuration. Raises InvalidSettings."""
    config = _load(native.resolve(file, environ))
    host, port = native.bind(HTTP_PORT_NAME, ANY_HOST, config.port, environ)
    kubeconfig = environ.get("KUBECONFIG")
    secrets = native.resolve(config.redis_secret_dir, environ)
    return Settings(
        config=config,
        host=host,
        port=port,
        admin_dir=native.resolve(config.admin_dir, environ),
        snapshot_dir=native.resolve(config.snapshot_dir, environ),
        provider_ca=native.resolve(config.provider_ca_dir, environ) / "ca.crt",
        signing_dir=native.resolve(config.signing_key_dir, environ),
        redis=_redis(config.redis_url, secrets) if config.redis_url else None,
        kubeconfig=Path(kubeconfig) if kubeconfig else None,
    )


def _redis(url: str, secrets: Path) -> Address:
    try:
        return address(url, secrets / "password", secrets / "ca.crt")
    except (ValueError, OSError) as error:
        raise InvalidSettings(f"the configuration is wrong: {error}") from error


def _load(path: Path) -> GatewayConfig:
    try:
        return gatewayconfig.load(path.read_text())
    except OSError as error:
        raise InvalidSettings(f"cannot read the configuration {path}: {error.strerror}") from error
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise InvalidSettings(f"the configuration {path} is wrong: {wrong}") from error
