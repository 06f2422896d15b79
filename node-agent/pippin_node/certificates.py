"""Keys and certificates: requests to the cluster's signers, self-signed ones, expiry.

A bundle is one PEM file with the certificate and its key, so that both change at once.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .client import ApiError, Client, Unreachable
from .records import Json

CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING_SIGNER = "kubernetes.io/kubelet-serving"
USAGES = {
    CLIENT_SIGNER: ["digital signature", "client auth"],
    SERVING_SIGNER: ["digital signature", "server auth"],
}
REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"

#: Renewed when this share of the lifetime is over (the kubelet: 70 to 90 %).
RENEW_AT = 0.8
#: Pause between two looks at a request that waits for approval, seconds.
POLL_SECONDS = 1.0


class NotSigned(Exception):
    """The cluster refused the request, or did not sign it in time; the words say what to do."""


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def node_subject(node: str) -> x509.Name:
    """The identity of a node: what the Node authorizer and NodeRestriction go by."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}"),
        ]
    )


def alternative_names(names: Sequence[str]) -> x509.SubjectAlternativeName:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return x509.SubjectAlternativeName(found)


def signing_request(key: ec.EllipticCurvePrivateKey, node: str, names: Sequence[str] = ()) -> bytes:
    """A PKCS#10 request as PEM; `names` are host names and addresses of a serving certificate."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(node_subject(node))
    if names:
        builder = builder.add_extension(alternative_names(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def self_signed(node: str, names: Sequence[str], now: datetime) -> bytes:
    """A bundle to serve with until the cluster has signed a better one."""
    key = new_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(node_subject(node))
        .issuer_name(node_subject(node))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(alternative_names(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key_pem(key)


def renewal_due(bundle: bytes, now: datetime) -> bool:
    """Whether most of the certificate's life is over."""
    certificate = x509.load_pem_x509_certificate(bundle)
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return now >= certificate.not_valid_before_utc + life * RENEW_AT


def same_names(bundle: bytes, names: Sequence[str]) -> bool:
    """Whether a serving certificate is for these names (an address may have changed)."""
    extension = x509.load_pem_x509_certificate(bundle).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return set(extension.value) == set(alternative_names(names))


def utc_now() -> datetime:
    return datetime.now(UTC)


async def obtain(
    client: Client, signer: str, node: str, names: Sequence[str], wait_seconds: float
) -> bytes:
    """Ask the cluster for a certificate and wait for it; a bundle. Raises NotSigned, ApiError."""
    key = new_key()
    created = await client.create(REQUESTS, _request_object(key, signer, node, names))
    name = created["metadata"]["name"]
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            status = (await client.get(f"{REQUESTS}/{name}")).get("status", {})
        except Unreachable:
            status = {}
        except ApiError as error:
            if error.status == 404:
                raise NotSigned(f"certificate request {name} was removed unsigned") from error
            raise
        if status.get("certificate"):
            return base64.b64decode(status["certificate"]) + key_pem(key)
        for condition in status.get("conditions", []):
            if condition["type"] in ("Denied", "Failed"):
                words = condition.get("message") or condition.get("reason", "")
                raise NotSigned(f"certificate request {name}: {condition['type']}: {words}")
        if time.monotonic() > deadline:
            raise NotSigned(
                f"certificate request {name} was not signed within {wait_seconds:.0f} s;"
                f" approve it: kubectl certificate approve {name}"
            )
        await asyncio.sleep(POLL_SECONDS)


def _request_object(
    key: ec.EllipticCurvePrivateKey, signer: str, node: str, names: Sequence[str]
) -> Json:
    request = base64.b64encode(signing_request(key, node, names)).decode()
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": f"pippin-node-{secrets.token_hex(8)}"},
        "spec": {"request": request, "signerName": signer, "usages": USAGES[signer]},
    }
