"""How the weights of a model and of its adapters reach a Pod: where the server finds them, and
what must be mounted for it."""

from __future__ import annotations

from dataclasses import dataclass
from posixpath import basename, normpath
from typing import Any

from pippin_contract import wire

from ..api.honored import adapters
from ..api.model import Adapter, Credentials
from ..api.model import Model as ModelSpec
from ..api.modeldeployment import ModelDeploymentSpec

TOKEN_DIR = "/etc/pippin/credentials"
ADAPTER_TOKEN_DIR = "/etc/pippin/adapter-credentials"
_TOKEN_FILE = "token"
#: Sources that want more than one token, and find it by the names of a Secret's keys.
_NAMED = ("s3://", "oci://")
_HUB = "hf://"


@dataclass(frozen=True)
class Weights:
    """`path` is empty when the server fetches the uri itself."""

    path: str = ""
    token_file: str = ""
    credentials_dir: str = ""
    volumes: tuple[dict[str, Any], ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class _Place:
    """What is mounted for one of them: volumes' names, and where."""

    volume: str = "model"
    directory: str = wire.MODEL_DIR
    secret: str = "credentials"
    secret_directory: str = TOKEN_DIR


def weights(model: ModelSpec) -> Weights:
    return _weights(model.uri or "", model.credentials_secret_ref, _Place())


def adapter_weights(model: ModelSpec, number: int) -> Weights:
    """Of the model's adapters the one with that `number`; their names are none for volumes."""
    adapter = model.adapters[number]
    place = _Place(
        f"adapter-{number}",
        f"{wire.ADAPTER_DIR}/{number}",
        f"adapter-{number}-credentials",
        f"{ADAPTER_TOKEN_DIR}/{number}",
    )
    return _weights(adapter.uri, _secret(model, adapter), place)


def _secret(model: ModelSpec, adapter: Adapter) -> Credentials | None:
    """The model's, too, where it is shown to nobody who does not get it anyway."""
    both = (model.uri or "").startswith(_HUB) and adapter.uri.startswith(_HUB)
    return adapter.credentials_secret_ref or (model.credentials_secret_ref if both else None)


def every(spec: ModelDeploymentSpec) -> tuple[Weights, ...]:
    """The model's, and its adapters'."""
    of_adapters = (adapter_weights(spec.model, n) for n, _ in enumerate(adapters(spec)))
    return weights(spec.model), *of_adapters


def _weights(uri: str, secret: Credentials | None, place: _Place) -> Weights:
    scheme, _, rest = uri.partition("://")
    match scheme:
        case "file":
            return _host_directory(normpath(rest), place)
        case "pvc":
            return _claim(rest, place)
        case _:
            return _fetched(uri, secret, place)


def _host_directory(directory: str, place: _Place) -> Weights:
    path = f"{place.directory}/{basename(directory)}"
    return Weights(
        path=path,
        volumes=({"name": place.volume, "hostPath": {"path": directory, "type": "Directory"}},),
        mounts=({"name": place.volume, "mountPath": path, "readOnly": True},),
    )


def _claim(rest: str, place: _Place) -> Weights:
    claim, _, inside = rest.partition("/")
    inside = normpath("/" + inside).strip("/")
    source = {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    return Weights(
        path=f"{place.directory}/{inside}" if inside else place.directory,
        volumes=({"name": place.volume, **source},),
        mounts=({"name": place.volume, "mountPath": place.directory, "readOnly": True},),
    )


def _fetched(uri: str, secret: Credentials | None, place: _Place) -> Weights:
    if secret is None:
        return Weights()
    named = uri.startswith(_NAMED)
    volume: dict[str, Any] = {"secretName": secret.name}
    if not named:
        volume["items"] = [{"key": secret.key or _TOKEN_FILE, "path": _TOKEN_FILE}]
    elif secret.key:
        volume["items"] = [{"key": secret.key, "path": secret.key}]
    where = place.secret_directory
    return Weights(
        token_file="" if named else f"{where}/{_TOKEN_FILE}",
        credentials_dir=where if named else "",
        volumes=({"name": place.secret, "secret": volume},),
        mounts=({"name": place.secret, "mountPath": where, "readOnly": True},),
    )
