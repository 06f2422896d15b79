"""argv -> one command; what goes wrong is one line and an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from pippin_contract import __version__

from . import check, explain, keys
from .kubectl import Failed, Kubectl
from .manifest import expiry


def main() -> None:
    """Entry point. Exit code 2: wrongly typed; else kubectl's."""
    typed = parser().parse_args()
    try:
        typed.command(Kubectl(flags(typed)), typed)
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(130)


def parser() -> argparse.ArgumentParser:
    """Every command and flag."""
    words = "Keys of Pippin's endpoint, and how requests fared."
    root = argparse.ArgumentParser(prog="kubectl pippin", description=words)
    root.add_argument("--version", action="version", version=__version__)
    areas = root.add_subparsers(required=True, metavar="COMMAND")
    key = areas.add_parser("key", help="create, show, replace and end API keys")
    commands = key.add_subparsers(required=True, metavar="COMMAND")
    create = _command(commands, "create", keys.create, "create a key and wait until it is good")
    _what_it_may_do(create)
    create.add_argument("--reveal", action="store_true", help="print the key")
    create.add_argument("--dry-run", action="store_true", help="print the object, create nothing")
    show = _command(commands, "show", keys.show, "say what a key may do, or print it")
    how = show.add_mutually_exclusive_group()
    how.add_argument("--reveal", action="store_true", help="print the key and nothing else")
    how.add_argument("--env", action="store_true", help="print lines for a shell to eval")
    _command(commands, "rotate", keys.rotate, "replace a key; the old one stays good for a while")
    _command(commands, "pause", keys.pause, "refuse a key until it is resumed")
    _command(commands, "resume", keys.resume, "take a paused key again")
    revoke = _command(commands, "revoke", keys.revoke, "end a key and delete its Secret")
    revoke.add_argument("--yes", action="store_true", help="do not ask")
    _output(_command(commands, "usage", keys.usage, "say what a key has used, by model"))
    checked = areas.add_parser("check", help="say whether manifests would work; change nothing")
    checked.set_defaults(command=check.check)
    checked.add_argument(
        *("-f", "--filename"),
        action="append",
        required=True,
        metavar="PATH",
        help="a file, a directory with all below it, or - for standard input; more than once",
    )
    checked.add_argument("-n", "--namespace", help="of objects that name none; default: kubectl's")
    _cluster(checked)
    asked = areas.add_parser("explain", help="say how one request fared, and why")
    asked.set_defaults(command=explain.explain)
    asked.add_argument("id", metavar="REQUEST_ID", help="from the answer's header X-Request-ID")
    _cluster(asked)
    _output(asked)
    return root


def flags(typed: argparse.Namespace) -> Sequence[str]:
    """kubectl's own, as they were typed."""
    given = ("kubeconfig", "context", "namespace")
    found = {name: getattr(typed, name, None) for name in given}
    return [f"--{name}={value}" for name, value in found.items() if value]


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: object,
    words: str,
) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
    made.set_defaults(command=command)
    made.add_argument("name", metavar="NAME", help="of the APIKey")
    made.add_argument("-n", "--namespace", help="where it is; default: kubectl's")
    _cluster(made)
    made.add_argument(
        "--timeout", type=float, default=30, metavar="SECONDS", help="for the operator (30)"
    )
    return made


def _cluster(command: argparse.ArgumentParser) -> None:
    command.add_argument("--context", help="the cluster; default: kubectl's")
    command.add_argument("--kubeconfig", metavar="FILE", help="default: kubectl's")


def _output(command: argparse.ArgumentParser) -> None:
    command.add_argument("-o", "--output", choices=("text", "json"), default="text", help="(text)")


def _what_it_may_do(create: argparse.ArgumentParser) -> None:
    create.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="GLOB",
        help="served name that the key may use, such as 'qwen-*'; more than once for more",
    )
    for name, words in (
        ("rpm", "requests a minute"),
        ("tpm", "tokens a minute"),
        ("tokens-per-day", "tokens a day, UTC"),
        ("concurrency", "requests under way"),
    ):
        create.add_argument(f"--{name}", type=int, metavar="N", help=words)
    create.add_argument("--owner", help="whom to ask about the key")
    create.add_argument("--description", help="what it is for")
    create.add_argument(
        "--expires",
        type=lambda text: expiry(text, datetime.now(UTC)),
        metavar="WHEN",
        help="30d, 12h, 2027-01-31 or 2027-01-31T12:00:00Z",
    )
    create.add_argument("--rotate-every", metavar="DURATION", help="replace it at that age: 720h")
    create.add_argument(
        "--overlap", default="24h", metavar="DURATION", help="how long the old one stays good (24h)"
    )


if __name__ == "__main__":
    main()
