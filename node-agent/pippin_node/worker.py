"""The story of one Pod on this node: from what is wanted and what is seen to the next step.

Level-based: every wake-up looks at everything again, so nothing depends on which event came.
"""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta

import structlog

from . import policy, ports, status
from .client import STRATEGIC, ApiError, Unreachable
from .container import Container
from .context import Context, parse_time, rfc3339
from .env import ConfigError
from .ports import NoPort
from .records import Json, PodDir
from .volumes import Layout, MountError, Payload

log = structlog.get_logger(__name__)

DEFAULT_GRACE = 30
#: Of what failed, doubled each time; seconds.
FIRST_PAUSE = 0.05
#: Refusals that are not told yet.
EARLY_FAILURES = 5
OVER = ("Succeeded", "Failed")


class PodWorker:
    """One task per Pod runs `run`; everyone else only calls `update`, `gone` and `wake`."""

    def __init__(self, context: Context, pod: Json, pod_dir: PodDir) -> None:
        self.context = context
        self.pod = pod
        self.pod_dir = pod_dir
        self.containers = [Container(self, spec) for spec in pod["spec"]["containers"]]
        self._wake = asyncio.Event()
        self._exists = True
        self._failure: tuple[str, str] | None = None
        self._started_at: str = pod.get("status", {}).get("startTime") or rfc3339(context.now())
        self._laid_out_at: float | None = None
        self._mount_failures = 0
        self._written: dict[str, Payload] = {}
        self._checked: Json | None = None
        self._refusal: policy.Refusal | None = None

    @property
    def uid(self) -> str:
        return str(self.pod["metadata"]["uid"])

    @property
    def ending(self) -> bool:
        return not self._exists or "deletionTimestamp" in self.pod["metadata"]

    def wake(self) -> None:
        self._wake.set()

    def update(self, pod: Json, *, listed: bool = False) -> None:
        """A state of the object; from a list it is the last word, even after a restored backup."""
        if not listed and _version(pod) < _version(self.pod):
            return  # the watch lags behind the answer to our own write
        self.pod = pod
        for container, spec in zip(self.containers, pod["spec"]["containers"], strict=True):
            container.spec = spec
        if self.ending:
            self._end_containers(self._grace)
        self.wake()

    def gone(self) -> None:
        """The object does not exist any more (force-deleted, or while the agent was away)."""
        self._exists = False
        self._end_containers(self._grace)
        self.wake()

    def adopt(self) -> None:
        """Take over processes of an earlier agent."""
        known = {one["name"]: one for one in self._status.get("containerStatuses", [])}
        for container in self.containers:
            container.adopt(known.get(container.name))

    def release(self) -> None:
        for container in self.containers:
            container.release()

    async def run(self) -> None:
        """Until the Pod is gone from this node."""
        failures = 0
        while True:
            self._wake.clear()
            try:
                pause = await self._end() if self.ending else await self._sync()
                failures = 0
            except (ApiError, Unreachable) as error:
                log.warning("pod.retry", pod=self.pod["metadata"]["name"], error=str(error))
                failures += 1
                pause = self._pause(failures)
            except Exception:  # one Pod's trouble must not end the agent of all the others
                log.exception("pod.failed", pod=self.pod["metadata"]["name"])
                pause = self.context.settings.retry_seconds
            if pause is None:
                return
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _pause(self, failures: int) -> float:
        """Before the next try: short at first, since much is there a moment later."""
        return float(
            min(FIRST_PAUSE * 2.0 ** min(failures, 32), self.context.settings.retry_seconds)
        )

    @property
    def _status(self) -> Json:
        found: Json = self.pod.get("status", {})
        return found

    @property
    def _grace(self) -> float:
        meta, spec = self.pod["metadata"], self.pod["spec"]
        asked = meta.get("deletionGracePeriodSeconds")
        if asked is None:
            asked = spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE)
        return float(asked)

    async def _sync(self) -> float:
        """One look at a Pod that is to run; seconds until the next one is due at the latest."""
        if self._status.get("phase") in OVER or self._failure is not None:
            return await self._stay_over()
        if self._checked != self.pod["spec"]:
            self._refusal = policy.check(self.pod, self.context.rules)
            self._checked = self.pod["spec"]
        refusal = self._refusal
        if refusal is not None:
            return await self._refuse(refusal)
        left = self._time_left()
        if left <= 0:
            words = "Pod was active on the node longer than the specified deadline"
            return await self._fail("DeadlineExceeded", words)
        if self._laid_out_at is None:
            self.pod_dir.prepare(self.pod)
        pause = min(left, await self._lay_out())
        if self.pod_dir.mounted.exists():
            for container in self.containers:
                pause = min(pause, await self._tend(container))
        await self._post(self._derive())
        return pause

    async def _lay_out(self) -> float:
        """Volumes, when it is time; seconds until it is time again."""
        loop, settings = asyncio.get_running_loop(), self.context.settings
        if self._laid_out_at is not None:
            left = self._laid_out_at + settings.resync_seconds - loop.time()
            if left > 0:
                return left
        layout = Layout(
            self.pod,
            self.context.sources.of(self.pod),
            self.context.facts,
            settings.allow_host_path,
            self._written,
        )
        try:
            await layout.lay_out(self.pod_dir)
        except (MountError, ApiError) as error:
            self._mount_failures += 1
            # A node that is quick is refused until the API server's own caches know of the binding.
            early = isinstance(error, ApiError) and error.status == 403
            if not early or self._mount_failures > EARLY_FAILURES:
                self._event("Warning", "FailedMount", str(error))
            return self._pause(self._mount_failures)
        except Unreachable:
            if not self.pod_dir.mounted.exists():
                raise
            return settings.retry_seconds  # what was laid out before serves on
        self._laid_out_at, self._mount_failures = loop.time(), 0
        return settings.resync_seconds

    async def _tend(self, container: Container) -> float:
        """Bring one container nearer to what is wanted; seconds until the next look."""
        far = self.context.settings.resync_seconds
        if container.running:
            self._watch(container)
            return far
        ending = container.exit
        if ending is not None:
            restart = self.pod["spec"].get("restartPolicy", "Always")
            if restart == "Never" or (restart == "OnFailure" and ending.code == 0):
                return far
            left = self._backoff_left(container)
            if left > 0:
                self._back_off(container)
                return left
        return min(far, await self._start(container))

    def _watch(self, container: Container) -> None:
        """A running container: end it when a probe gave it up or its definition changed."""
        if container.stopping:
            return
        failed = container.must_restart
        if failed is not None:
            words = f"failed {failed.kind.value.lower()} probe, will be restarted"
            grace = failed.grace if failed.grace is not None else self._own_grace
        elif container.changed:
            words, grace = "definition changed, will be restarted", self._own_grace
        else:
            return
        self._event("Normal", "Killing", f"Container {container.name} {words}", container.name)
        container.begin_stop(grace)

    @property
    def _own_grace(self) -> float:
        return float(self.pod["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE))

    def _backoff_left(self, container: Container) -> float:
        ending = container.exit
        if ending is None:
            return 0
        delay = timedelta(seconds=self.context.schedule.delay(container.crashes))
        until = parse_time(ending.finished_at) + delay
        return (until - self.context.now()).total_seconds()

    def _back_off(self, container: Container) -> None:
        name, delay = container.name, self.context.schedule.delay(container.crashes)
        meta = self.pod["metadata"]
        pod = f"{meta['name']}_{meta['namespace']}({self.uid})"
        words = f"back-off {_duration(delay)} restarting failed container={name} pod={pod}"
        if container.waiting is None:
            message = f"Back-off restarting failed container {name} in pod {pod}"
            self._event("Warning", "BackOff", message, name)
        container.waiting = ("CrashLoopBackOff", words)

    async def _start(self, container: Container) -> float:
        settings = self.context.settings
        try:
            await container.start()
        except (ConfigError, NoPort, OSError) as error:
            if container.waiting != ("CreateContainerConfigError", str(error)):
                self._event("Warning", "Failed", f"Error: {error}", container.name)
            container.waiting = ("CreateContainerConfigError", str(error))
            return settings.retry_seconds
        self._event("Normal", "Created", f"Container created: {container.name}", container.name)
        self._event("Normal", "Started", f"Container started: {container.name}", container.name)
        return settings.resync_seconds

    async def _refuse(self, refusal: policy.Refusal) -> float:
        """Say no, once: for good, or by waiting where a controller would try for ever.

        A Deployment replaces each Failed Pod at once, so failing its Pods would flood the cluster.
        """
        for container in self.containers:
            container.waiting = (refusal.reason, refusal.message)
            if container.running:
                container.begin_stop(self._own_grace)
        wanted = self._derive()
        if not status.same(wanted, self._status):
            self._event("Warning", refusal.reason, refusal.message)
        if not _replaced_at_once(self.pod):
            return await self._fail(refusal.reason, refusal.message)
        await self._post(wanted)
        return self.context.settings.resync_seconds

    async def _fail(self, reason: str, message: str) -> float:
        """End the Pod for good."""
        self._failure = (reason, message)
        return await self._stay_over()

    async def _stay_over(self) -> float:
        """A Pod that is over runs nothing, whoever said so."""
        await asyncio.gather(*self._end_containers(self._own_grace))
        if self._failure is not None:
            await self._post(self._derive())
        return self.context.settings.resync_seconds

    def _time_left(self) -> float:
        limit: int | None = self.pod["spec"].get("activeDeadlineSeconds")
        if limit is None:
            return math.inf
        ran = self.context.now() - parse_time(self._started_at)
        return limit - ran.total_seconds()

    async def _end(self) -> float | None:
        """Everything ends; then the object goes, then the files."""
        await asyncio.gather(*self._end_containers(self._grace))
        if self._exists:
            if any(container.attempt >= 0 for container in self.containers):
                await self._post(self._derive(finishing=True))
        self.pod_dir.remove()
        self.context.ports.release(self.uid)
        self.context.sources.forget(self.uid)
        if self._exists:
            await self._delete()
        return None

    def _end_containers(self, grace: float) -> list[asyncio.Task[None]]:
        running = [container for container in self.containers if container.running]
        for container in running:
            if not container.stopping:
                words = f"Stopping container {container.name}"
                self._event("Normal", "Killing", words, container.name)
        return [container.begin_stop(grace) for container in running]

    async def _delete(self) -> None:
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        try:
            await self.context.client.delete(self._path, body)
        except ApiError as error:
            if error.status not in (404, 409):  # gone, or another Pod of that name by now
                raise

    @property
    def serving_port(self) -> int | None:
        """On loopback, while the Pod has one."""
        found = ports.serving(self.pod, self.context.ports.of(self.uid))
        return found[1] if found else None

    @property
    def _path(self) -> str:
        meta = self.pod["metadata"]
        return f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"

    def _derive(self, finishing: bool = False) -> Json:
        address = self.context.settings.host_address
        about = status.Circumstances(
            host_ip=address,
            started_at=self._started_at,
            now=rfc3339(self.context.now()),
            endpoint=ports.endpoint(self.pod, self.context.ports, address),
            finishing=finishing,
            failure=self._failure,
            known=self._status,
        )
        return status.derive(self.pod, [one.view() for one in self.containers], about)

    async def _post(self, wanted: Json) -> None:
        """Write the status when it differs from what the API server has."""
        if status.same(wanted, self._status):
            return
        body = {"metadata": {"uid": self.uid}, "status": wanted}
        try:
            pod = await self.context.client.patch(f"{self._path}/status", body, STRATEGIC)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            self.gone()
            return
        if _version(pod) >= _version(self.pod):
            self.pod = pod

    def _event(self, kind: str, reason: str, message: str, container: str = "") -> None:
        self.context.recorder.record(self.pod, kind, reason, message, container)


def _replaced_at_once(pod: Json) -> bool:
    """Whether a controller makes a new Pod as soon as this one fails."""
    owners = pod["metadata"].get("ownerReferences", [])
    kinds = {owner["kind"] for owner in owners if owner.get("controller")}
    return bool(kinds & {"ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController"})


def _version(pod: Json) -> int:
    return int(pod["metadata"].get("resourceVersion", 0))


def _duration(seconds: float) -> str:
    """As Go prints it: `10s`, `1m20s`, `5m0s`."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"
