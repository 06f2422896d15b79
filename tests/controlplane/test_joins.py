"""A machine joins with a bootstrap token, and its certificates are signed without a person."""

from __future__ import annotations

import base64
import ipaddress
import json
import secrets
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cluster.controlplane import ControlPlane
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.eventually import NeverHappened, eventually

CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING = "kubernetes.io/kubelet-serving"


def certificate_request(node: str, *names: x509.GeneralName) -> str:
    """A PEM request, base64 once more as the API wants it."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}"),
        ]
    )
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    request = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode()


def ask(plane: ControlPlane, kubeconfig: Path, signer: str, request: str) -> str:
    """Post a CertificateSigningRequest as someone; its name."""
    name = f"request-{secrets.token_hex(4)}"
    usage = "client auth" if signer == CLIENT else "server auth"
    body = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "signerName": signer,
            "request": request,
            "usages": ["digital signature", usage],
        },
    }
    subprocess.run(
        [plane.binaries / "kubectl", "--kubeconfig", kubeconfig, "create", "-f", "-"],
        input=json.dumps(body),
        text=True,
        capture_output=True,
        check=True,
    )
    return name


async def issued(plane: ControlPlane, name: str, within: float = 20) -> x509.Certificate:
    """The certificate once it is there."""

    def look() -> dict[str, Any]:
        path = f"/apis/certificates.k8s.io/v1/certificatesigningrequests/{name}"
        status: dict[str, Any] = plane.api.get(path).get("status", {})
        return status

    status = await eventually(look, until=lambda s: "certificate" in s, within=within)
    return x509.load_pem_x509_certificate(base64.b64decode(status["certificate"]))


async def test_a_bootstrap_token_buys_a_nodes_certificate(full_control_plane: ControlPlane) -> None:
    kubeconfig = full_control_plane.bootstrap_kubeconfig()
    name = ask(full_control_plane, kubeconfig, CLIENT, certificate_request("joins"))
    certificate = await issued(full_control_plane, name)
    assert "CN=system:node:joins" in certificate.subject.rfc4514_string()


async def test_a_node_gets_its_serving_certificate_for_loopback_only(
    full_control_plane: ControlPlane,
) -> None:
    kubeconfig = full_control_plane.user_kubeconfig("system:node:serves", "system:nodes")
    foreign = certificate_request("serves", x509.DNSName("kubernetes.default.svc"))
    pending = ask(full_control_plane, kubeconfig, SERVING, foreign)
    loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    own = ask(full_control_plane, kubeconfig, SERVING, certificate_request("serves", loopback))
    assert await issued(full_control_plane, own)
    with pytest.raises(NeverHappened):
        await issued(full_control_plane, pending, within=1)


async def test_the_approver_outlives_the_api_server(full_control_plane: ControlPlane) -> None:
    full_control_plane.stop_apiserver()
    full_control_plane.start_apiserver()
    kubeconfig = full_control_plane.user_kubeconfig("system:node:later", "system:nodes")
    loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    name = ask(full_control_plane, kubeconfig, SERVING, certificate_request("later", loopback))
    assert await issued(full_control_plane, name)
