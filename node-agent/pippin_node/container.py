"""One container of a Pod: its attempts, its probes, its end. Decides nothing about restarts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Protocol

from . import env, launch, logs, policy, ports, probes
from .client import ApiError, Unreachable
from .context import Context, parse_time
from .probes import Kind, Prober
from .process import Exit, Launch, Process
from .records import Json, PodDir, read_json
from .status import Ended, Seen

MESSAGE_LIMIT = 4096
OUTPUT_LIMIT = 10240
#: What is left for SIGTERM when preStop took all the grace there was (as the kubelet does).
MINIMUM_GRACE = 2.0
FALLBACK = "FallbackToLogsOnError"


class Owner(Protocol):
    """The Pod, as its containers see it."""

    @property
    def pod(self) -> Json: ...

    @property
    def pod_dir(self) -> PodDir: ...

    @property
    def context(self) -> Context: ...

    def wake(self) -> None: ...


class Container:
    """Call `adopt` first; then `start` whenever `process` is None or has ended."""

    def __init__(self, owner: Owner, spec: Json) -> None:
        self.owner = owner
        self.spec = spec
        self.name: str = spec["name"]
        self.process: Process | None = None
        self.attempt = -1
        self.crashes = 0
        self.waiting: tuple[str, str] | None = ("ContainerCreating", "")
        self._last: Ended | None = None
        self._message = ""
        self._prober: Prober | None = None
        self._adopted: Json | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._deadline = 0.0
        self._hurry = asyncio.Event()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.exit is None

    @property
    def stopping(self) -> bool:
        return self._stopping is not None

    @property
    def exit(self) -> Exit | None:
        return self.process.exit if self.process else None

    @property
    def must_restart(self) -> probes.Probe | None:
        """The probe that gave this container up."""
        return self._prober.failed if self._prober and self.running else None

    @property
    def changed(self) -> bool:
        """Whether it runs something else than the manifest says now."""
        if self.process is None or not self.running:
            return False
        return bool(self.process.note.get("image") != self.spec["image"])

    @property
    def _bind_host(self) -> str:
        return ports.bind_host(self.spec, self.owner.context.settings.host_address)

    def adopt(self, known: Json | None) -> None:
        """Take over what is on record; `known` is the container's last posted status."""
        numbers = self.owner.pod_dir.attempts(self.name)
        if not numbers:
            return
        for number in numbers[:-1]:
            self._last = self._ended_of(number)
        self.attempt, self.waiting, self._adopted = numbers[-1], None, known or {}
        self._claim_ports()
        self.process = Process(self._directory(self.attempt), self._process_changed)
        self.process.adopt()
        self.crashes = self.process.note.get("crashes", 0)
        self._process_changed()

    async def start(self) -> None:
        """Begin the next attempt. Raises ConfigError, NoPort, ApiError, Unreachable, OSError."""
        ports_of_pod = self.owner.context.ports.of(self.owner.pod["metadata"]["uid"])
        ports_of_pod[self.name] = ports.assign(
            self.spec, ports_of_pod.get(self.name, {}), self._bind_host, self._pick_port
        )
        values = await self.environment()
        argv = launch.command_line(self.spec, self.owner.context.rules, values)
        process = Process(self._directory(self.attempt + 1), self._process_changed)
        values["PIPPIN_TERMINATION_LOG"] = str(process.termination_log)
        settings = self.owner.context.settings
        order = Launch(
            argv=argv,
            env=values,
            cwd=launch.working_directory(self.spec, self.owner.pod_dir),
            log_bytes=settings.log_max_bytes,
            log_files=settings.log_max_files,
            note={
                "image": self.spec["image"],
                "ports": ports_of_pod[self.name],
                "crashes": self.crashes,
            },
        )
        async with self.owner.context.turn:  # a hundred starts at once would hold up all probes
            process.start(order)
            await asyncio.sleep(0)
        if self.process is not None:
            self._last = self._ended_of(self.attempt)
        self.attempt += 1
        self.process = process
        self.waiting, self._adopted, self._stopping, self._message = None, None, None, ""
        self.owner.pod_dir.forget_old_attempts(self.name)

    async def environment(self) -> dict[str, str]:
        """All variables of the process. Raises ConfigError, ApiError, Unreachable."""
        context, pod = self.owner.context, self.owner.pod
        source = context.sources.of(pod)
        asked = await env.container_env(pod, self.spec, context.facts, source.object)
        mine = context.ports.of(pod["metadata"]["uid"]).get(self.name, {})
        return {
            **context.inherited,
            **launch.limit_env(self.spec),
            **asked,
            **launch.native_env(self.spec, self.owner.pod_dir, mine, self._bind_host),
            **launch.cluster_env(self.spec, pod, self.owner.pod_dir, context),
        }

    def begin_stop(self, grace: float) -> asyncio.Task[None]:
        """End it within `grace` seconds; called again, only a shorter grace counts."""
        deadline = time.monotonic() + grace
        if self._stopping is None:
            self._deadline = deadline
            self._stopping = asyncio.create_task(self._stop())
        elif deadline < self._deadline:
            self._deadline = deadline
            self._hurry.set()
        return self._stopping

    def release(self) -> None:
        """Leave the process alone: the agent ends, the Pod goes on."""
        if self._prober is not None:
            self._prober.stop()
        if self._stopping is not None:
            self._stopping.cancel()
        if self.process is not None:
            self.process.release()

    def view(self) -> Seen:
        """What the status is derived from."""
        ended = self._ended_now()
        running = self.running and self.process is not None
        since = self.process.started_at if running and self.process else None
        waiting = self.waiting
        if running and since is None:
            waiting = ("ContainerCreating", "")
        return Seen(
            name=self.name,
            image=self.spec["image"],
            attempt=max(self.attempt, 0),
            waiting=waiting,
            running_since=None if waiting else since,
            ended=None if waiting or running else ended,
            last=ended if waiting and ended else self._last,
            started=bool(running and self._prober and self._prober.started),
            ready=bool(running and self._prober and self._prober.ready),
        )

    def _ended_now(self) -> Ended | None:
        if self.process is None or self.process.exit is None:
            return None
        return Ended(self.attempt, self.process.exit, self.process.started_at, self._message)

    def _directory(self, number: int) -> Path:
        return self.owner.pod_dir.attempt(self.name, number)

    def _pick_port(self) -> int:
        return self.owner.context.ports.pick(self._bind_host)

    def _claim_ports(self) -> None:
        note = read_json(self._directory(self.attempt) / "launch.json") or {}
        uid = self.owner.pod["metadata"]["uid"]
        self.owner.context.ports.of(uid)[self.name] = note.get("ports", {})

    def _ended_of(self, number: int) -> Ended | None:
        """An attempt that is over, from its records."""
        if self.process is not None and number == self.attempt:
            return self._ended_now()
        before = Process(self._directory(number), lambda: None)
        before.adopt()
        if before.exit is None:  # cannot be: an attempt begins after the end of the last one
            before.kill()
            before.release()
            return None
        return Ended(number, before.exit, before.started_at, self._last_message(before))

    def _process_changed(self) -> None:
        process = self.process
        if process is None:
            return
        if process.exit is not None:
            self._over(process, process.exit)
        elif process.started_at is not None and self._prober is None:
            self._begin_probes(process.started_at)
        self.owner.wake()

    def _over(self, process: Process, ending: Exit) -> None:
        if self._prober is not None:
            self._prober.stop()
            self._prober = None
        self._message = self._last_message(process)
        ran = 0.0
        if process.started_at is not None:
            ended = parse_time(ending.finished_at)
            ran = (ended - parse_time(process.started_at)).total_seconds()
        before = process.note.get("crashes", 0)
        self.crashes = self.owner.context.schedule.crashes(before, ran)

    def _begin_probes(self, started_at: str) -> None:
        target = probes.Target(self._bind_host, self._reach(), self._execute)
        self._prober = Prober(self.spec, target, told=self._probe_failed, changed=self.owner.wake)
        if self._adopted is None:
            self._prober.begin()
            return
        ran = (self.owner.context.now() - parse_time(started_at)).total_seconds()
        known = self._adopted
        same = known.get("restartCount") == self.attempt
        self._prober.begin(
            ran,
            started=same and bool(known.get("started")),
            ready=same and bool(known.get("ready")),
        )

    def _probe_failed(self, kind: Kind, words: str) -> None:
        self._event("Warning", "Unhealthy", f"{kind.value} probe failed: {words}")

    def _event(self, kind: str, reason: str, message: str) -> None:
        self.owner.context.recorder.record(self.owner.pod, kind, reason, message, self.name)

    def _last_message(self, process: Process) -> str:
        """The termination message, else the end of the log when the manifest says so."""
        with contextlib.suppress(OSError):
            with process.termination_log.open("rb") as file:
                text = file.read(MESSAGE_LIMIT).decode(errors="replace")
            if text:
                return text
        failed = process.exit is not None and process.exit.code != 0
        if failed and self.spec.get("terminationMessagePolicy") == FALLBACK:
            return logs.last_words(process.log)
        return ""

    async def _stop(self) -> None:
        process = self.process
        if process is None or process.exit is not None:
            return
        if self._prober is not None:
            self._prober.stop(Kind.STARTUP, Kind.LIVENESS)
        hook = self.spec.get("lifecycle", {}).get("preStop")
        if hook and self._deadline > time.monotonic():
            await self._until(process, asyncio.create_task(self._pre_stop(hook)))
            self._deadline = max(self._deadline, time.monotonic() + MINIMUM_GRACE)
        process.terminate()
        await self._until(process)
        process.kill()
        await process.exited.wait()

    async def _until(self, process: Process, also: asyncio.Task[None] | None = None) -> None:
        """Wait for the end, the deadline (it may come nearer), or the hook."""
        ended = asyncio.create_task(process.exited.wait())
        try:
            while not ended.done() and not (also and also.done()):
                left = self._deadline - time.monotonic()
                if left <= 0:
                    return
                self._hurry.clear()
                hurried = asyncio.create_task(self._hurry.wait())
                waited = {ended, hurried} | ({also} if also else set())
                await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                hurried.cancel()
        finally:
            ended.cancel()
            if also is not None:
                also.cancel()

    async def _pre_stop(self, hook: Json) -> None:
        """Run the hook; a failure is told and otherwise ignored."""
        if "sleep" in hook:
            await asyncio.sleep(hook["sleep"]["seconds"])
            return
        whole = max(self._deadline - time.monotonic(), 0.1)
        once = probes.Probe(Kind.LIVENESS, hook, 0, 1, whole, 1, 1, None)
        target = probes.Target(self._bind_host, self._reach(), self._execute)
        words = await probes.attempt(once, target)
        if words is not None:
            self._event("Warning", "FailedPreStopHook", f"PreStopHook failed: {words}")

    def _reach(self) -> dict[str | int, int]:
        """Port name and number -> the port on this machine."""
        uid = self.owner.pod["metadata"]["uid"]
        mine = self.owner.context.ports.of(uid).get(self.name, {})
        found: dict[str | int, int] = {}
        for port in self.spec.get("ports", []):
            if port["name"] in mine:
                found[port["name"]] = found[port["containerPort"]] = mine[port["name"]]
        return found

    async def _execute(self, command: list[str]) -> tuple[int, str]:
        """Run one of our entry points beside the container, with its environment."""
        argv = policy.exec_command(command, self.owner.context.rules.images)
        if argv is None:
            return 126, f"{command[0]!r} may not be executed on a native node"
        try:
            values = await self.environment()
        except (env.ConfigError, ApiError, Unreachable) as error:
            return 126, str(error)
        child = await asyncio.create_subprocess_exec(
            *argv,
            env=values,
            cwd=self.owner.pod_dir.root,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            assert child.stdout is not None
            output = await child.stdout.read(OUTPUT_LIMIT)
            code = await child.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        return code, output.decode(errors="replace")
