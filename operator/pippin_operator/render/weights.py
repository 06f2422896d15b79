"""How the weights reach a Pod: where the server finds them, and what must be mounted for it."""

from __future__ import annotations

from dataclasses import dataclass
from posixpath import basename, normpath
from typing import Any

from pippin_contract import wire

from ..api.modeldeployment import Model as ModelSpec

TOKEN_DIR = "/etc/pippin/credentials"
_TOKEN_FILE = "token"
#: Sources that want more than one token, and find it by the names of a Secret's keys.
_NAMED = ("s3://", "oci://")


@dataclass(frozen=True)
class Weights:
    """`path` is empty when the server fetches the uri itself."""

    path: str = ""
    token_file: str = ""
    credentials_dir: str = ""
    volumes: tuple[dict[str, Any], ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()


def weights(model: ModelSpec) -> Weights:
    scheme, _, rest = (model.uri or "").partition("://")
    match scheme:
        case "file":
            return _host_directory(normpath(rest))
        case "pvc":
            return _claim(rest)
        case _:
            return _fetched(model)


def _host_directory(directory: str) -> Weights:
    path = f"{wire.MODEL_DIR}/{basename(directory)}"
    return Weights(
        path=path,
        volumes=({"name": "model", "hostPath": {"path": directory, "type": "Directory"}},),
        mounts=({"name": "model", "mountPath": path, "readOnly": True},),
    )


def _claim(rest: str) -> Weights:
    claim, _, inside = rest.partition("/")
    inside = normpath("/" + inside).strip("/")
    return Weights(
        path=f"{wire.MODEL_DIR}/{inside}" if inside else wire.MODEL_DIR,
        volumes=(
            {"name": "model", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}},
        ),
        mounts=({"name": "model", "mountPath": wire.MODEL_DIR, "readOnly": True},),
    )


def _fetched(model: ModelSpec) -> Weights:
    secret = model.credentials_secret_ref
    if secret is None:
        return Weights()
    named = (model.uri or "").startswith(_NAMED)
    volume: dict[str, Any] = {"secretName": secret.name}
    if not named:
        volume["items"] = [{"key": secret.key or _TOKEN_FILE, "path": _TOKEN_FILE}]
    elif secret.key:
        volume["items"] = [{"key": secret.key, "path": secret.key}]
    return Weights(
        token_file="" if named else f"{TOKEN_DIR}/{_TOKEN_FILE}",
        credentials_dir=TOKEN_DIR if named else "",
        volumes=({"name": "credentials", "secret": volume},),
        mounts=({"name": "credentials", "mountPath": TOKEN_DIR, "readOnly": True},),
    )
