"""`pippin-node`: join a cluster, run as its node, end everything."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pippin_contract import __version__
from pippin_edge import logs

from .agent import run_agent
from .certificates import NotSigned
from .client import ApiError, Client, Unreachable
from .join import NotJoined, join, make_root
from .reset import InUse, NotOurs, locked, reset
from .settings import Settings

#: Exit code for errors that the caller can mend; the words are on stderr.
FAILED = 1


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="pippin-node", description=__doc__)
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(dest="command", required=True)
    joining = commands.add_parser("join", help="get this machine's identity from a cluster")
    joining.add_argument("--bootstrap-kubeconfig", type=Path, help="with a bootstrap token")
    joining.add_argument("--server", help="URL of the API server")
    joining.add_argument("--token", help="bootstrap token, or `-` to read it from stdin")
    joining.add_argument("--ca-file", type=Path, help="CA of the API server")
    joining.add_argument("--name", help="name of the Node (default: the host's)")
    joining.add_argument("--run", action="store_true", help="run the node after joining")
    running = commands.add_parser("run", help="run the node; ending it leaves its Pods running")
    for sub in (joining, running):
        sub.add_argument("--host-address", help="address of this machine (default: loopback)")
        sub.add_argument("--kubelet-port", type=int, help="TLS port for logs (default: any free)")
        sub.add_argument(
            "--allow-host-path",
            type=Path,
            action="append",
            help="directory that Pods may mount; may be given more than once",
        )
        sub.add_argument("--memory-budget", help="memory that Pods may ask for, such as 24Gi")
        sub.add_argument("--os", choices=("linux", "darwin"), help="for tests: what it says it is")
        sub.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    ending = commands.add_parser("reset", help="end agent and Pods, remove the root")
    ending.add_argument("--grace", type=float, default=10, help="seconds for Pods to end")
    for sub in (joining, running, ending):
        sub.add_argument("--root", type=Path, help="where the agent keeps everything")
    return top


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Environment, overridden by what was given as a flag. Raises ValidationError."""
    given: dict[str, Any] = {
        name: value
        for name, value in vars(arguments).items()
        if name in Settings.model_fields and value is not None
    }
    return Settings(**given)


async def bootstrap_client(arguments: argparse.Namespace) -> Client:
    if arguments.bootstrap_kubeconfig:
        return await Client.from_kubeconfig(arguments.bootstrap_kubeconfig)
    if not (arguments.server and arguments.token):
        raise NotJoined("give --bootstrap-kubeconfig, or --server and --token (and --ca-file)")
    token = sys.stdin.readline().strip() if arguments.token == "-" else arguments.token
    return Client.from_token(arguments.server, token, arguments.ca_file)


async def do_join(arguments: argparse.Namespace, settings: Settings) -> None:
    client = await bootstrap_client(arguments)
    try:
        await join(client, settings.root, settings.name, settings.csr_wait_seconds)
    finally:
        await client.close()
    print(f"joined {client.server} as {settings.name}; identity in {settings.root}")


def command(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments)
    if arguments.command == "reset":
        ended = reset(settings.root, arguments.grace)
        print(f"ended {ended} processes, removed {settings.root}")
        return
    logs.configure(settings.log_level)
    make_root(settings.root)
    with locked(settings.root):
        if arguments.command == "join":
            asyncio.run(do_join(arguments, settings))
        if arguments.command == "run" or arguments.run:
            asyncio.run(run_agent(settings, os.environ))


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        command(arguments)
    except ValidationError as error:
        for one in error.errors():
            where = ".".join(str(part) for part in one["loc"])
            print(f"pippin-node: {where}: {one['msg']}", file=sys.stderr)
        return FAILED
    except (ApiError, Unreachable, NotSigned, NotJoined, InUse, NotOurs, OSError) as error:
        print(f"pippin-node: {error}", file=sys.stderr)
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
