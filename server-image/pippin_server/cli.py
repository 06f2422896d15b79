"""The command line: serve, check, discover, hardware, drain."""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

from pippin_contract import __version__, native, wire
from pippin_contract.serverconfig import EngineName, ServerConfig
from pippin_edge import logs
from pippin_edge.clock import SYSTEM

from . import keys, process
from . import settings as told
from .checks import Report, examine, examine_several
from .engines import registry
from .hardware import detect
from .hardware import report as hardware
from .hardware.choice import choose
from .models import discovery
from .models.discovery import Found

log = structlog.get_logger("pippin.server")


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = vars(_parser().parse_args(arguments))
    command = parsed.pop("command")
    if command == "drain":
        return _drain(parsed["port"])
    as_json = parsed.pop("json", False)
    if command == "discover":
        return _discover(parsed["directory"], parsed["engine"], as_json=as_json)
    if command == "hardware":
        return _hardware(as_json=as_json)
    try:
        plan = _plan(parsed)
    except told.SettingsError as error:
        return _refuse(command, error.problems, as_json)
    around = plan.surroundings()
    report = _examined(plan, around)
    if command == "check":
        report = report.and_arguments(plan.config, around)
        print(json.dumps(report.payload(), indent=1) if as_json else report.text())
        return wire.EXIT_CONFIG if report.errors else 0
    return _serve(plan, report)


def _examined(plan: process.Plan, around: registry.Surroundings) -> Report:
    if plan.found is not None:
        return examine_several(plan.config, around, plan.host, plan.port, plan.found)
    return examine(plan.config, around, plan.host, plan.port, told.environment())


def _serve(plan: process.Plan, report: Report) -> int:
    logs.configure(plan.settings.log_level)
    for library in ("httpx", "httpx2"):  # they tell what we tell
        logging.getLogger(library).setLevel(logging.WARNING)
    for check in report.checks:
        if check.level != "ok":
            log.warning("check", level=check.level, check=check.name, message=check.message)
    if report.errors:
        first = report.errors[0]
        words = "; ".join(check.message for check in report.errors)
        process.write_termination_message(first.reason, words)
        return wire.EXIT_CONFIG
    code = _run(plan)
    process.leave(code)
    return code


def _run(plan: process.Plan) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(process.run(plan))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(process.run(plan))


def _plan(flags: dict[str, Any]) -> process.Plan:
    settings = told.load(flags)
    found: tuple[Found, ...] | None = None
    if settings.models_dir is None:
        config = told.server_config(settings, _preferred)
    else:
        config = told.several_config(settings, _preferred)
        found = _discovered(settings.models_dir, config)
    host, port = told.address(settings, config)
    try:
        verify = keys.verifier(config.auth, settings.api_keys_file, SYSTEM)
    except keys.UnusableKeys as error:
        raise told.SettingsError([str(error)]) from error
    return process.Plan(settings, config, host, port, verify, found)


def _discovered(directory: Path, config: ServerConfig) -> tuple[Found, ...]:
    """Raises SettingsError."""
    try:
        return tuple(discovery.discover(directory, config))
    except OSError as error:
        words = f"models_dir: {directory}: {error.strerror}"
        raise told.SettingsError([words]) from error


def _discover(directory: str, engine: EngineName | None, *, as_json: bool) -> int:
    config = told.several_config(told.load({"engine": engine}), _preferred)
    try:
        found = _discovered(Path(directory), config)
    except told.SettingsError as error:
        print(f"pippin-server: {error}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps({"models": [one.payload() for one in found]}, indent=1))
    else:
        print(discovery.table(found))
    return 0


def _refuse(command: str, problems: list[str], as_json: bool) -> int:
    if as_json:
        found = {"valid": False, "errors": problems, "warnings": [], "checks": []}
        print(json.dumps(found, indent=1))
    else:
        for problem in problems:
            print(f"pippin-server: {problem}", file=sys.stderr)
    if command == "serve":
        process.write_termination_message("ConfigInvalid", "; ".join(problems))
    return wire.EXIT_CONFIG


def _preferred() -> EngineName:
    """Never the echo engine: nobody wants it who does not say so."""
    taken = choose(detect.detect(), registry.versions()).engine
    return "mlx" if taken == "echo" else taken


def _hardware(*, as_json: bool) -> int:
    found = detect.detect()
    choice = choose(found, registry.versions())
    print(
        json.dumps(hardware.payload(found, choice), indent=1)
        if as_json
        else hardware.table(found, choice)
    )
    return 0


def _drain(port: int | None) -> int:
    """For the preStop hook: back when the last request has ended."""
    settings = told.load({})
    _, configured = native.bind(wire.HTTP_PORT_NAME, "127.0.0.1", settings.port, told.environment())
    connection = http.client.HTTPConnection("127.0.0.1", port or configured)
    try:
        connection.request("POST", "/internal/drain", body=b"")
        answer = connection.getresponse()
        print(answer.read().decode())
    except OSError as error:
        print(f"pippin-server: nothing to drain: {error}", file=sys.stderr)
        return 1
    return 0 if answer.status == 200 else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pippin-server", description="Models behind HTTP.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="load the model and answer requests")
    check = commands.add_parser("check", help="say what would be wrong, and do nothing")
    for command in (serve, check):
        _add_settings(command)
    check.add_argument("--json", action="store_true", help="the report as JSON")
    found = commands.add_parser("hardware", help="say what is here, and for which engine it is")
    found.add_argument("--json", action="store_true", help="the same as JSON")
    models = commands.add_parser("discover", help="say which models lie in a directory")
    models.add_argument("directory", metavar="DIR")
    models.add_argument("--engine", choices=["mlx", "vllm", "echo"])
    models.add_argument("--json", action="store_true", help="the same as JSON")
    drain = commands.add_parser("drain", help="let the server on this machine finish")
    drain.add_argument("--port", type=int)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--config", help="server.json, as the operator writes it")
    add("--model", help="directory with the weights, or hf://, s3://, oci://, https://, file://")
    add("--models-dir", metavar="DIR", help="serve all models there, each loaded on first use")
    add("--max-loaded-models", type=int, metavar="N", help="of them in memory at once; default: 3")
    add("--load-timeout", type=float, metavar="SECONDS", help="for one of them; default: 300")
    add("--name", help="the name that clients ask for; default: the directory's")
    add("--engine", choices=["mlx", "vllm", "echo"])
    add("--task", choices=["chat", "completion", "embedding", "transcription", "image"])
    add("--engine-arg", dest="engine_args", action="append", help="for the engine; repeat it")
    add("--host")
    add("--port", type=int)
    add("--max-concurrency", type=int)
    add("--context-length", type=int)
    kept = "keep prefixes of prompts"
    add("--prompt-cache", action=argparse.BooleanOptionalAction, default=None, help=kept)
    add("--prompt-cache-bytes", metavar="SIZE", help="memory for them, such as 2Gi (engine mlx)")
    add("--memory-limit", metavar="SIZE", help="memory that the server may take, such as 16Gi")
    add("--memory-check", choices=["refuse", "warn"], help="what to do with a model too large")
    add("--log-level", choices=["debug", "info", "warning", "error"])
