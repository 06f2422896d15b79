"""The environment and the arguments of a container, from its manifest. Pure given a lookup."""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Mapping
from decimal import ROUND_CEILING, Decimal

from pippin_contract.units import quantity

from .records import Json

#: (kind, name) -> the ConfigMap or Secret, None when it does not exist.
Lookup = Callable[[str, str], Awaitable[Json | None]]

#: Names that decide what code a process loads or whose files it takes for its own. On a native node
#: a Pod that may set them would own the machine, so only the agent does.
RESERVED = frozenset(
    "PATH HOME TMPDIR ENV BASH_ENV KUBECONFIG OPENSSL_CONF OPENSSL_MODULES OPENSSL_ENGINES"
    " GCONV_PATH GLIBC_TUNABLES PIPPIN_ROOT PIPPIN_BIND_HOST PIPPIN_TERMINATION_LOG"
    " KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT".split()
)
RESERVED_PREFIXES = ("LD_", "DYLD_", "PYTHON", "PIPPIN_PORT_")

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)")
_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['([^']+)'\]$")
_VARIABLE = re.compile(r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")


class ConfigError(Exception):
    """The container cannot be configured now (the kubelet's CreateContainerConfigError)."""


def reserved(name: str) -> bool:
    """Whether a Pod may not set this variable on a native node."""
    return name in RESERVED or name.startswith(RESERVED_PREFIXES)


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace `$(NAME)` of known names; `$$(NAME)` is `$(NAME)`, unknown names stay."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return values.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


def decode_data(kind: str, source: Json) -> dict[str, bytes]:
    """The files of a ConfigMap or Secret."""
    if kind == "secret":
        return {key: base64.b64decode(value) for key, value in source.get("data", {}).items()}
    text = {key: value.encode() for key, value in source.get("data", {}).items()}
    binary = source.get("binaryData", {})
    return {**text, **{key: base64.b64decode(value) for key, value in binary.items()}}


async def container_env(
    pod: Json, container: Json, machine: Mapping[str, str], lookup: Lookup
) -> dict[str, str]:
    """`envFrom`, then `env` in order, each seeing the ones before. Raises ConfigError.

    `machine` holds the node's own facts: cpu and memory that stand in for missing limits, hostIP.
    """
    values: dict[str, str] = {}
    for source in container.get("envFrom", []):
        values.update(await _env_from(source, lookup))
    for variable in container.get("env", []):
        name = variable["name"]
        if "valueFrom" in variable:
            found = await _value_from(pod, container, variable["valueFrom"], machine, lookup)
            if found is not None:
                values[name] = found
        else:
            values[name] = expand(variable.get("value", ""), values)
    return values


async def _env_from(source: Json, lookup: Lookup) -> dict[str, str]:
    kind = "secret" if "secretRef" in source else "configmap"
    reference = source.get("secretRef") or source.get("configMapRef") or {}
    found = await lookup(kind, reference["name"])
    if found is None:
        if reference.get("optional"):
            return {}
        raise ConfigError(f'{kind} "{reference["name"]}" not found')
    prefix = source.get("prefix", "")
    for key in decode_data(kind, found):
        if reserved(prefix + key):
            raise ConfigError(f"env {prefix + key} may not be set on a native node")
    return {
        prefix + key: value.decode(errors="replace")
        for key, value in decode_data(kind, found).items()
        if _VARIABLE.match(prefix + key)
    }


async def _value_from(
    pod: Json, container: Json, source: Json, machine: Mapping[str, str], lookup: Lookup
) -> str | None:
    if "fieldRef" in source:
        return field(pod, source["fieldRef"]["fieldPath"], machine)
    if "resourceFieldRef" in source:
        return resource(pod, container, source["resourceFieldRef"], machine)
    kind = "secret" if "secretKeyRef" in source else "configmap"
    reference = source.get("secretKeyRef") or source.get("configMapKeyRef") or {}
    name, key = reference["name"], reference["key"]
    found = await lookup(kind, name)
    if found is None:
        if reference.get("optional"):
            return None
        raise ConfigError(f'{kind} "{name}" not found')
    data = decode_data(kind, found)
    if key not in data:
        if reference.get("optional"):
            return None
        where = "Secret" if kind == "secret" else "ConfigMap"
        namespace = pod["metadata"]["namespace"]
        raise ConfigError(f"couldn't find key {key} in {where} {namespace}/{name}")
    return data[key].decode(errors="replace")


def field(pod: Json, path: str, machine: Mapping[str, str]) -> str:
    """One field of the downward API. Raises ConfigError."""
    meta, spec = pod["metadata"], pod["spec"]
    subscript = _SUBSCRIPT.match(path)
    if subscript:
        return str(meta.get(subscript[1], {}).get(subscript[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        entries = meta.get(path.partition(".")[2], {})
        return "\n".join(f'{key}="{_quoted(entries[key])}"' for key in sorted(entries))
    simple = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.hostIP": machine["hostIP"],
        "status.hostIPs": machine["hostIP"],
        "status.podIP": "",  # a native Pod has none
        "status.podIPs": "",
    }
    if path not in simple:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(simple[path])


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource(pod: Json, container: Json, reference: Json, machine: Mapping[str, str]) -> str:
    """`limits.memory` and the like in units of the divisor, rounded up. Raises ConfigError."""
    named = reference.get("containerName")
    for other in pod["spec"]["containers"]:
        if other["name"] == named:
            container = other
    kind, _, name = reference["resource"].partition(".")
    asked = container.get("resources", {})
    amount = asked.get(kind, {}).get(name)
    if amount is None and kind == "limits":
        amount = machine.get(name)  # without a limit the node's size is the limit
    divisor = quantity(reference.get("divisor") or "1") or Decimal(1)
    value = quantity(amount or "0") / divisor
    return str(value.to_integral_value(rounding=ROUND_CEILING))
