"""Signs off the serving certificates of nodes on this machine.

Kubernetes leaves `kubernetes.io/kubelet-serving` requests to the cluster's owner. Approved is what
a node asks for itself and for loopback names only; everything else is left for a person to judge.
"""

from __future__ import annotations

import base64
import datetime as dt
import http.client
import ipaddress
import sys
import time
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from .api import Api, Refused

SIGNER = "kubernetes.io/kubelet-serving"
_REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
_USAGES = {"digital signature", "key encipherment", "server auth"}
_RETRY_SECONDS = 1.0


def run(api: Api) -> None:
    """Approve what may be approved, for ever; outlives restarts of the API server."""
    while True:
        try:
            listing = api.get(_REQUESTS)
            for request in listing["items"]:
                _consider(api, request)
            for event in api.watch(_REQUESTS, listing["metadata"]["resourceVersion"]):
                if event["type"] == "ADDED":
                    _consider(api, event["object"])
        except (OSError, http.client.HTTPException, Refused) as error:
            print(f"looking again in {_RETRY_SECONDS:.0f} s: {error}", file=sys.stderr, flush=True)
            time.sleep(_RETRY_SECONDS)


def objection(spec: dict[str, Any]) -> str | None:
    """Why a request for a serving certificate is not approved; None when it may be."""
    user = spec.get("username", "")
    node = user.removeprefix("system:node:")
    if node == user or "system:nodes" not in spec.get("groups", []):
        return f"{user} is not a node"
    if not set(spec.get("usages", [])) <= _USAGES:
        return "it asks for more than serving"
    request = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
    subject = {(part.oid, part.value) for part in request.subject}
    if subject != {(NameOID.COMMON_NAME, user), (NameOID.ORGANIZATION_NAME, "system:nodes")}:
        return "its subject is not the node that asks"
    return _foreign_name(request, node)


def _foreign_name(request: x509.CertificateSigningRequest, node: str) -> str | None:
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "it names no address"
    for name in names:
        if isinstance(name, x509.DNSName) and name.value in (node, "localhost"):
            continue
        if isinstance(name, x509.IPAddress) and _is_loopback(name):
            continue
        return f"{name.value} is neither loopback nor the node's name"
    return None


def _is_loopback(name: x509.IPAddress) -> bool:
    address = name.value
    return isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address) and (
        address.is_loopback
    )


def _consider(api: Api, request: dict[str, Any]) -> None:
    spec, status = request["spec"], request.get("status", {})
    if spec["signerName"] != SIGNER or status.get("conditions"):
        return
    name = request["metadata"]["name"]
    if why := objection(spec):
        print(f"{name}: left pending: {why}", file=sys.stderr, flush=True)
        return
    approval = {
        "type": "Approved",
        "status": "True",
        "reason": "LoopbackNode",
        "message": "a node of this machine, for loopback names",
        "lastUpdateTime": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    request["status"] = {**status, "conditions": [approval]}
    api.put(f"{_REQUESTS}/{name}/approval", request)
    print(f"{name}: approved for {spec['username']}", file=sys.stderr, flush=True)
