"""The parent of one container's process: outlives the agent, so logs and exit codes are not lost.

Runs as a script of its own (`python -I -S shim.py`, standard library only, a few MiB, asleep while
the program is silent). The launch order comes as JSON on stdin, so secrets in the environment touch
no disk. In the attempt's directory it keeps
    state.json   pids and start time, once the program runs
    log log.1 …  output in the CRI format, rotated at a size
    exit.json    how it ended; written before `alive` closes
`alive` is a FIFO whose write end this process holds for life: readers see end-of-file when it is
gone, whoever their parent is. SIGTERM is passed to the program; SIGUSR1 kills its whole group.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time

CHUNK = 65536
#: A line longer than this is written in parts, as container runtimes do.
LINE_LIMIT = 16384
#: How long output of a dead program may still be drained, seconds.
DRAIN_SECONDS = 1.0
#: What runtimes answer when the program could not be started at all.
START_FAILED = 128


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 with nanoseconds, UTC."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


def start_mark(pid: int) -> str | None:
    """Something that tells this process from a later one with the same pid; None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    except OSError:
        if os.path.exists("/proc/self/stat"):
            return None
    with os.popen(f"ps -o lstart= -p {int(pid)} 2>/dev/null") as output:  # macOS has no /proc
        return output.read().strip() or None


def oom_kills() -> int:
    """How often the kernel's OOM killer struck on this machine so far (Linux)."""
    try:
        with open("/proc/vmstat") as file:
            return int(dict(line.split() for line in file).get("oom_kill", 0))
    except (OSError, ValueError):
        return 0


class Log:
    """Appends lines as `<time> <stream> <F|P> <text>` and rotates the file at a size."""

    def __init__(self, path: str, max_bytes: int, max_files: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.max_files = max_files
        self.rest: dict[str, bytes] = {}
        self._open()

    def _open(self) -> None:
        self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.size = os.fstat(self.file).st_size

    def feed(self, stream: str, data: bytes) -> None:
        """Take output as it comes; whole lines are written, the rest waits for its end."""
        *lines, rest = (self.rest.get(stream, b"") + data).split(b"\n")
        now = timestamp(time.time_ns()).encode()
        out = []
        for line in lines:
            out += self._parts(line, now, stream.encode())
        while len(rest) > LINE_LIMIT:
            out.append(b"%s %s P %s\n" % (now, stream.encode(), rest[:LINE_LIMIT]))
            rest = rest[LINE_LIMIT:]
        self.rest[stream] = rest
        self._write(b"".join(out))

    def close(self) -> None:
        now = timestamp(time.time_ns()).encode()
        for stream, rest in self.rest.items():
            if rest:
                self._write(b"%s %s P %s\n" % (now, stream.encode(), rest))
        os.close(self.file)

    @staticmethod
    def _parts(line: bytes, now: bytes, stream: bytes) -> list[bytes]:
        out = []
        while len(line) > LINE_LIMIT:
            out.append(b"%s %s P %s\n" % (now, stream, line[:LINE_LIMIT]))
            line = line[LINE_LIMIT:]
        return [*out, b"%s %s F %s\n" % (now, stream, line)]

    def _write(self, data: bytes) -> None:
        if not data:
            return
        with contextlib.suppress(OSError):  # a full disk must not end the program
            os.write(self.file, data)
        self.size += len(data)
        if self.size >= self.max_bytes:
            self._rotate()

    def _rotate(self) -> None:
        os.close(self.file)
        for number in range(self.max_files - 1, 0, -1):
            source = self.path if number == 1 else f"{self.path}.{number - 1}"
            with contextlib.suppress(OSError):
                os.replace(source, f"{self.path}.{number}")
        if self.max_files == 1:
            os.truncate(self.path, 0)
        self._open()


class Shim:
    """One program from its start to its end."""

    def __init__(self, order: dict) -> None:  # type: ignore[type-arg]  # JSON as it came
        self.order = order
        self.directory = order["directory"]
        self.log = Log(self.directory + "/log", order["logBytes"], order["logFiles"])
        self.streams: dict[int, str] = {}
        self.pid = 0
        self.status: int | None = None
        self.oom_before = oom_kills()

    def run(self) -> None:
        wake_read, wake_write = os.pipe()
        for end in (wake_read, wake_write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        error = self.start()
        if error:
            self.finish({"code": START_FAILED, "signal": 0, "oom": False, "error": error})
            return
        while self.status is None:
            self.step(wake_read)
        self.kill_group()  # a container ends with its first process
        self.drain()
        code = os.waitstatus_to_exitcode(self.status)
        killed = -code if code < 0 else 0
        oom = killed == signal.SIGKILL and oom_kills() > self.oom_before
        self.finish({"code": 128 + killed if killed else code, "signal": killed, "oom": oom})

    def start(self) -> str:
        """Fork and exec; the words of the failure, or nothing."""
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        failed_read, failed_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self.become(out_write, err_write, failed_write)
        for end in (out_write, err_write, failed_write):
            os.close(end)
        self.streams = {out_read: "stdout", err_read: "stderr"}
        for end in self.streams:
            os.set_blocking(end, False)
        failure = os.read(failed_read, CHUNK).decode(errors="replace")  # empty once exec succeeded
        os.close(failed_read)
        if failure:
            os.waitpid(self.pid, 0)
            return failure
        self.write("state.json", {
            "shim": os.getpid(),
            "pid": self.pid,
            "mark": start_mark(self.pid),
            "startedAt": timestamp(time.time_ns()),
        })  # fmt: skip
        with contextlib.suppress(OSError):  # nobody may be listening
            os.write(self.order["aliveFd"], b"S")
        return ""

    def become(self, out: int, err: int, failed: int) -> None:
        """In the child: turn into the program. Never returns."""
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((null, 0), (out, 1), (err, 2)):
                os.dup2(source, target)
            for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)  # ignored signals would stay ignored
            os.umask(0o077)
            os.chdir(self.order["cwd"])
            os.execve(self.order["argv"][0], self.order["argv"], self.order["env"])
        except BaseException as error:
            os.write(failed, str(error).encode())
        finally:
            os._exit(127)

    def step(self, wake: int) -> None:
        """Sleep until output, a signal or the end; deal with it."""
        readable, _, _ = select.select([wake, *self.streams], [], [])
        for descriptor in readable:
            if descriptor != wake:
                self.read(descriptor)
                continue
            for number in os.read(wake, CHUNK):
                self.signalled(number)

    def signalled(self, number: int) -> None:
        if number == signal.SIGTERM:
            os.kill(self.pid, signal.SIGTERM)
        elif number == signal.SIGUSR1:
            self.kill_group()
        elif number == signal.SIGCHLD:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid == self.pid:
                self.status = status

    def kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # EPERM: macOS, all zombies
            os.killpg(self.pid, signal.SIGKILL)

    def read(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return
        if data:
            self.log.feed(self.streams[descriptor], data)
            return
        os.close(descriptor)
        del self.streams[descriptor]

    def drain(self) -> None:
        until = time.monotonic() + DRAIN_SECONDS
        while self.streams and time.monotonic() < until:
            readable, _, _ = select.select(list(self.streams), [], [], 0)
            if not readable:
                return  # something escaped the group and keeps the pipe open
            for descriptor in readable:
                self.read(descriptor)

    def finish(self, ending: dict) -> None:  # type: ignore[type-arg]  # JSON to be
        self.log.close()
        self.write("exit.json", {**ending, "finishedAt": timestamp(time.time_ns())})

    def write(self, name: str, value: dict) -> None:  # type: ignore[type-arg]  # JSON to be
        temporary = f"{self.directory}/.{name}.tmp"
        with contextlib.suppress(OSError):  # the Pod may have been removed under us
            with open(temporary, "w") as file:
                json.dump(value, file)
            os.replace(temporary, f"{self.directory}/{name}")


def main() -> None:
    order = json.load(sys.stdin)
    os.set_inheritable(order["aliveFd"], False)
    Shim(order).run()


if __name__ == "__main__":
    main()
