"""Volumes of a native Pod: what is in them, and links from its root to them.

Content that comes from the API server is replaced at once, as the kubelet's atomic writer does:
the files are links through `..data`, which is swapped, so a reader never sees half an update.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from . import env
from .records import Json, PodDir

DATA = "..data"
#: A machine has other users, unlike a container: whatever the manifest's mode, others get nothing.
OWNER_ONLY = 0o700
DEFAULT_MODE = 0o644
SECRET_MODE = 0o600

TOKEN_SECONDS = 3600


class MountError(Exception):
    """The volume cannot be laid out now; the words are the kubelet's."""


class Source(Protocol):
    """Where content comes from. `None`: no such object."""

    async def object(self, kind: str, name: str) -> Json | None: ...

    async def token(self, audience: str, seconds: int) -> str: ...


@dataclass(frozen=True)
class File:
    content: bytes
    mode: int


Payload = dict[str, File]


@dataclass(frozen=True)
class Layout:
    """Lays out one Pod's volumes. `machine` holds the node's facts for the downward API."""

    pod: Json
    source: Source
    machine: Mapping[str, str]
    allow_host_path: tuple[Path, ...] = ()
    #: What was written before, so that a look at what did not change touches no file.
    written: dict[str, Payload] = field(default_factory=dict)

    async def lay_out(self, pod_dir: PodDir) -> None:
        """Bring all volumes up to date, link them into the Pod's root. Raises MountError."""
        places: dict[str, Path] = {}
        for volume in self.pod["spec"].get("volumes", []):
            name = volume["name"]
            try:
                places[name] = await self._place(volume, pod_dir)
            except (MountError, OSError) as error:
                raise MountError(
                    f'MountVolume.SetUp failed for volume "{name}" : {error}'
                ) from error
        if pod_dir.mounted.exists():
            return  # what is mounted where does not change in a Pod's life
        for path, mount in sorted(_mounts(self.pod).items()):
            _link(pod_dir.root / path.lstrip("/"), _target(places[mount["name"]], mount))
        for own in ("tmp", "home"):
            with contextlib.suppress(FileExistsError):
                (pod_dir.root / own).mkdir(mode=0o700)
        pod_dir.mounted.touch(mode=0o600)

    async def payload(self, volume: Json) -> Payload | None:
        """The files of a volume; None for one that is only a directory. Raises MountError."""
        if "configMap" in volume:
            return await self._object("configmap", volume["configMap"], volume["configMap"])
        if "secret" in volume:
            secret = volume["secret"]
            return await self._object("secret", {**secret, "name": secret["secretName"]}, secret)
        if "downwardAPI" in volume:
            return self._downward(volume["downwardAPI"])
        if "projected" in volume:
            files: Payload = {}
            for part in volume["projected"].get("sources", []):
                files.update(await self._projected(part, volume["projected"]))
            return files
        return None

    async def _place(self, volume: Json, pod_dir: PodDir) -> Path:
        if "hostPath" in volume:
            return host_path(volume["hostPath"], self.allow_host_path)
        directory = pod_dir.volumes / str(volume["name"])
        files = await self.payload(volume)
        if files is None:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif self.written.get(volume["name"]) != files:
            write(directory, files)
            self.written[volume["name"]] = files
        return directory

    async def _projected(self, part: Json, volume: Json) -> Payload:
        for kind, name in (("configMap", "configmap"), ("secret", "secret")):
            if kind in part:
                return await self._object(name, part[kind], volume)
        if "downwardAPI" in part:
            return self._downward({"defaultMode": volume.get("defaultMode"), **part["downwardAPI"]})
        wanted = part["serviceAccountToken"]
        seconds = wanted.get("expirationSeconds") or TOKEN_SECONDS
        token = await self.source.token(wanted.get("audience", ""), seconds)
        return {wanted["path"]: File(token.encode(), SECRET_MODE)}

    async def _object(self, kind: str, reference: Json, volume: Json) -> Payload:
        name, optional = reference["name"], reference.get("optional", False)
        found = await self.source.object(kind, name)
        if found is None:
            if optional:
                return {}
            raise MountError(f'{kind} "{name}" not found')
        data = env.decode_data(kind, found)
        default = volume.get("defaultMode") or DEFAULT_MODE
        if not reference.get("items"):
            return {key: File(value, default & OWNER_ONLY) for key, value in data.items()}
        files: Payload = {}
        for item in reference["items"]:
            if item["key"] in data:
                mode = (item.get("mode") or default) & OWNER_ONLY
                files[item["path"]] = File(data[item["key"]], mode)
            elif not optional:
                raise MountError(f"references non-existent {kind} key: {item['key']}")
        return files

    def _downward(self, volume: Json) -> Payload:
        files: Payload = {}
        for item in volume.get("items", []):
            mode = item.get("mode") or volume.get("defaultMode") or DEFAULT_MODE
            try:
                if "fieldRef" in item:
                    text = env.field(self.pod, item["fieldRef"]["fieldPath"], self.machine)
                else:
                    text = env.resource(self.pod, {}, item["resourceFieldRef"], self.machine)
            except env.ConfigError as error:
                raise MountError(str(error)) from error
            files[item["path"]] = File(text.encode(), mode & OWNER_ONLY)
        return files


def write(directory: Path, files: Payload) -> bool:
    """Make the directory show exactly these files, all at once; whether anything changed."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    current = directory / DATA
    if current.is_dir() and _read(current.resolve()) == files:
        return False
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=directory))
    for name, file in files.items():
        path = fresh / _inside(name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(file.content)
        path.chmod(file.mode)
    old = current.resolve() if current.is_symlink() else None
    link = directory / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.replace(current)
    _link_visible(directory, {Path(name).parts[0] for name in files})
    if old is not None and old.parent == directory.resolve():
        shutil.rmtree(old, ignore_errors=True)
    return True


def _inside(name: str) -> str:
    if not name or name.startswith("/") or ".." in Path(name).parts:
        raise MountError(f"invalid path in volume: {name!r}")
    return name


def _read(directory: Path) -> Payload:
    files: Payload = {}
    for path in directory.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(directory))
            files[name] = File(path.read_bytes(), path.stat().st_mode & 0o777)
    return files


def _link_visible(directory: Path, names: set[str]) -> None:
    for name in names:
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(Path(DATA) / name)
    for entry in directory.iterdir():
        if not entry.name.startswith("..") and entry.is_symlink() and entry.name not in names:
            target = os.readlink(entry)
            if target.startswith(DATA):
                entry.unlink()


def host_path(source: Json, allowed: tuple[Path, ...]) -> Path:
    """The directory or file of the host, checked. Raises MountError."""
    path, kind = Path(source["path"]), source.get("type", "")
    if kind == "DirectoryOrCreate" and not path.exists():
        path.mkdir(mode=0o755, parents=True)
    real = path.resolve()
    if not any(real.is_relative_to(base.resolve()) for base in allowed):
        raise MountError(f"hostPath {path} leads out of what this node allows, to {real}")
    wrong = {
        "Directory": not real.is_dir(),
        "DirectoryOrCreate": not real.is_dir(),
        "File": not real.is_file(),
        "": not real.exists(),
    }
    if wrong[kind]:
        words = "a directory" if "Directory" in kind else ("a file" if kind else "there")
        raise MountError(f"hostPath type check failed: {path} is not {words}")
    return real


def _mounts(pod: Json) -> dict[str, Json]:
    return {
        mount["mountPath"].rstrip("/"): mount
        for container in pod["spec"]["containers"]
        for mount in container.get("volumeMounts", [])
    }


def _target(place: Path, mount: Json) -> Path:
    part = mount.get("subPath", "")
    if not part:
        return place
    target = place / str(part)
    if not target.exists():
        target.mkdir(mode=0o700, parents=True)
    return target


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if link.is_symlink():
        if Path(os.readlink(link)) == target:
            return
        link.unlink()
    elif link.is_dir():
        link.rmdir()  # our own empty tmp or home
    link.symlink_to(target, target_is_directory=target.is_dir())
