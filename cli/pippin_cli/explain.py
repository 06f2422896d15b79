"""`kubectl pippin explain`: how one request fared, asked of every gateway."""

from __future__ import annotations

import argparse
import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from pippin_contract import endpoint
from pippin_contract.wire import (
    ADMIN_SECRET,
    ADMIN_TOKEN,
    GATEWAY_POD_SELECTOR,
    GATEWAY_PORT,
    REQUESTS_PATH,
)

from .kubectl import Failed, Kubectl

#: Seconds for a gateway to answer.
PATIENCE = 10
_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

Told = dict[str, Any]


def explain(kubectl: Kubectl, typed: argparse.Namespace) -> None:
    """Say what became of it, or that no gateway remembers it."""
    if not _ID.fullmatch(typed.id):
        raise Failed(f"{typed.id!r} is no request id: it is in the answer's header X-Request-ID")
    found = _ask(kubectl, typed.id)
    if found is None:
        raise Failed(
            f"no gateway remembers the request {typed.id}: each keeps the last two thousand"
            " since it started"
        )
    if typed.output == "json":
        print(json.dumps(found, indent=2))
        return
    for line in lines(found):
        print(line)


def _ask(kubectl: Kubectl, request_id: str) -> Told | None:
    pods = kubectl.json("get", "pods", "--all-namespaces", "-l", GATEWAY_POD_SELECTOR)["items"]
    if not pods:
        raise Failed("there is no gateway in this cluster, or you may not see it")
    with kubectl.proxy("^/api/v1/namespaces/[^/]+/pods/[^/]+/proxy/admin/requests/") as api:
        for pod in pods:
            found = _of(api, pod, _token(kubectl, pod["metadata"]["namespace"]), request_id)
            if found is not None:
                return found
    return None


def _token(kubectl: Kubectl, namespace: str) -> str:
    secret = kubectl.json("get", "secret", ADMIN_SECRET, f"--namespace={namespace}")
    try:
        return base64.b64decode(secret["data"][ADMIN_TOKEN]).decode()
    except (KeyError, ValueError) as error:
        raise Failed(f"the Secret {ADMIN_SECRET} holds no token: does the operator run?") from error


def _of(api: str, pod: Told, token: str, request_id: str) -> Told | None:
    """What one gateway remembers."""
    metadata = pod["metadata"]
    where = endpoint.of_pod(pod, GATEWAY_PORT)
    if where is None:
        return None
    if where.host in _THIS_MACHINE:  # the API server does not go there
        url = where.url
    else:
        name = f"{metadata['name']}:{where.port}"
        url = f"{api}/api/v1/namespaces/{metadata['namespace']}/pods/{name}/proxy"
    # The API server keeps `Authorization` to itself.
    request = urllib.request.Request(url + REQUESTS_PATH + request_id, headers={"X-API-Key": token})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            found: Told = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise Failed(f"the gateway {metadata['name']} answered {error.code}") from error
    except OSError as error:
        raise Failed(f"the gateway {metadata['name']} cannot be reached: {error}") from error


def lines(told: Told) -> Iterator[str]:
    """For a person to read."""
    error = told["error"]
    yield f"Request:   {told['request_id']}, POST {told['path']}, ended at {told['ended_at']}"
    yield f"Answer:    {told['status']} after {told['duration_ms']} ms" + (
        f", the first token after {told['ttft_ms']} ms" if told["ttft_ms"] else ""
    )
    if told["waited_ms"]:
        yield f"Waited:    {told['waited_ms']} ms for a replica of the model"
    if error:
        yield f"Error:     {error['code']}: {error['message']}".rstrip(": ")
    yield f"Key:       {told['key']} (id {told['key_id']})"
    yield f"Model:     {told['model_asked']} -> {told['model'] or 'none'}" + (
        f", served by {told['served_by']}" if told["served_by"] else ""
    )
    counted = [f"{n} {kind}" for kind, n in told["tokens"].items() if n is not None]
    yield f"Tokens:    {', '.join(counted) or 'not told'}"
    yield from _limits(told["limits"])
    yield from _hops(told)


def _limits(limits: list[Told]) -> Iterator[str]:
    for one in limits:
        said = f"refused for {one['refused_for_s']} s" if one["refused_for_s"] else "let through"
        whose = f"{one['of']} {one['name']}"
        yield (
            f"Limit:     {one['kind']} {one['limit']} of {whose}: wanted {one['wanted']},"
            f" {said}, {one['remaining']} left"
        )


def _hops(told: Told) -> Iterator[str]:
    for hop in told["hops"]:
        yield (
            f"Try:       after {hop['after_ms']} ms {hop['model']} at {hop['replica']}:"
            f" {hop['outcome']} after {hop['took_ms']} ms"
        )
    for passed in told["passed_over"]:
        yield f"Instead:   {passed['model']} was passed over: {passed['reason']}"
