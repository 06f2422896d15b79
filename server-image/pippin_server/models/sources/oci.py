"""`oci://registry/repository:tag` or `@sha256:…`: a model as an artifact, in a registry.

The layouts of three tools: ORAS (a layer is a file, or a directory as tar.gz, named by its
title), ModelPack (`org.cncf.model.filepath`) and KitOps, and images with weights in their layers.
"""

from __future__ import annotations

import json
import platform
import re
from hashlib import sha256
from typing import Any

from .base import (
    Listing,
    RemoteFile,
    Surroundings,
    corrupted,
    is_safe,
    not_found,
    unreachable,
    wanted,
)
from .fetch import Fetcher
from .registry import Registry
from .web import Request

_REFERENCE = re.compile(
    r"oci://(?P<host>[A-Za-z0-9.-]+(?::\d{1,5})?)/(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_TITLE = "org.opencontainers.image.title"
_UNPACK = "io.deis.oras.content.unpack"
_FILEPATH = "org.cncf.model.filepath"
_TAR = re.compile(r"[.+]tar(?:[.+]gzip)?$")
_MOST = 4 * 1024 * 1024
#: Machines by the names that images give them.
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class Artifact:
    """A manifest and its layers."""

    def __init__(self, uri: str, around: Surroundings, tools: Fetcher) -> None:
        found = _REFERENCE.fullmatch(uri)
        if found is None:
            raise not_found(
                f"{uri!r} is no source: write oci://registry/repository:tag or …@sha256:digest"
            )
        self.where = uri
        self._registry = Registry(found["host"], found["name"], around, tools)
        self._reference = found["digest"] or found["tag"] or "latest"
        self._tools = tools

    def files(self) -> Listing:
        manifest = self._manifest(self._reference)
        if "manifests" in manifest:
            manifest = self._manifest(self._chosen(manifest["manifests"]))
        try:
            layers = [self._layer(layer) for layer in manifest["layers"]]
        except (LookupError, TypeError, AttributeError) as error:
            raise self._nonsense() from error
        files = [layer for layer in layers if layer is not None]
        if not files:
            raise not_found(f"{self.where}: there are no weights in any layer")
        return Listing(files, self._registry.sign, private=True)

    def _manifest(self, reference: str) -> dict[str, Any]:
        url = f"{self._registry.url}/manifests/{reference}"
        headers = {"accept": ", ".join(_MANIFESTS)}
        request = Request(url, headers, self._registry.sign, private=True)
        _, body = self._tools.small(self.where, request, _MOST)
        digest = _DIGEST.fullmatch(reference)
        if digest and sha256(body).hexdigest() != digest[1]:
            raise corrupted(f"{self.where}: the manifest is not the one of this digest")
        try:
            found = json.loads(body)
        except ValueError as error:
            raise self._nonsense() from error
        if not isinstance(found, dict):
            raise self._nonsense()
        return found

    def _chosen(self, manifests: Any) -> str:
        """Of an index the one for this machine, else the first: weights are the same everywhere."""
        machine = platform.machine()
        ours = {"os": "linux", "architecture": _MACHINES.get(machine, machine)}
        try:
            fits = [m for m in manifests if ours.items() <= m.get("platform", ours).items()]
            return f"sha256:{_digest((fits or manifests)[0])}"
        except (LookupError, TypeError, AttributeError) as error:
            raise self._nonsense() from error

    def _layer(self, layer: dict[str, Any]) -> RemoteFile | None:
        named = layer.get("annotations") or {}
        digest, size = _digest(layer), int(layer["size"])
        tarred = bool(_TAR.search(str(layer.get("mediaType", ""))))
        title = named.get(_TITLE) or (None if tarred else named.get(_FILEPATH))
        unpacked = named.get(_UNPACK) == "true" or (tarred and not title)
        name = f"layer {digest[:12]}" if unpacked else str(title or "")
        if not unpacked and not (wanted(name) and is_safe(name)):
            return None
        url = f"{self._registry.url}/blobs/sha256:{digest}"
        # Layers are found by what is in them, wherever they were first seen.
        identity = f"unpacked sha256 {digest}" if unpacked else f"sha256 {digest}"
        return RemoteFile(name, url, identity, size, digest, archive=unpacked)

    def _nonsense(self) -> Exception:
        return unreachable(f"{self.where}: the manifest cannot be understood", permanent=True)


def _digest(described: dict[str, Any]) -> str:
    """Raises LookupError for one that is no SHA-256."""
    found = _DIGEST.fullmatch(str(described["digest"]))
    if found is None:
        raise LookupError(described["digest"])
    return found[1]
