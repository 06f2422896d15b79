"""Which serving certificates are signed off without a person looking."""

from __future__ import annotations

import base64
import ipaddress
from typing import Any

import pytest
from cluster.approver import objection
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NODE = "system:node:mac-1"
LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


def a_request(
    *names: x509.GeneralName,
    user: str = NODE,
    subject: str = NODE,
    groups: tuple[str, ...] = ("system:nodes", "system:authenticated"),
    usages: tuple[str, ...] = ("digital signature", "server auth"),
) -> dict[str, Any]:
    """The spec of a CertificateSigningRequest."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, subject),
        ]
    )
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    request = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    pem = request.public_bytes(serialization.Encoding.PEM)
    return {
        "username": user,
        "groups": list(groups),
        "usages": list(usages),
        "request": base64.b64encode(pem).decode(),
    }


@pytest.mark.parametrize(
    "name", [LOOPBACK, x509.DNSName("mac-1"), x509.IPAddress(ipaddress.ip_address("::1"))]
)
def test_a_node_gets_a_certificate_for_itself_on_loopback(name: x509.GeneralName) -> None:
    assert objection(a_request(name)) is None


@pytest.mark.parametrize(
    ("request_spec", "why"),
    [
        (a_request(LOOPBACK, user="alice"), "alice is not a node"),
        (a_request(LOOPBACK, groups=("system:authenticated",)), "is not a node"),
        (a_request(LOOPBACK, subject="system:node:mac-2"), "not the node that asks"),
        (a_request(LOOPBACK, usages=("server auth", "client auth")), "more than serving"),
        (a_request(), "names no address"),
        (a_request(LOOPBACK, x509.DNSName("kubernetes.default.svc")), "kubernetes.default.svc is"),
        (a_request(x509.IPAddress(ipaddress.ip_address("10.96.0.1"))), "10.96.0.1 is neither"),
        (a_request(x509.IPAddress(ipaddress.ip_network("127.0.0.0/8"))), "127.0.0.0/8 is neither"),
        (a_request(x509.RFC822Name("a@example.com")), "a@example.com is neither"),
    ],
)
def test_everything_else_waits_for_a_person(request_spec: dict[str, Any], why: str) -> None:
    assert why in (objection(request_spec) or "")
