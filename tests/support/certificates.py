"""Certificates for this machine, made when they are needed."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOUR = timedelta(hours=1)


class Authority:
    """Signs for servers of a test; `public` is the file that clients trust."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(f"authority {x509.random_serial_number()}")
        made = _certificate(self._name, self._key, HOUR).issuer_name(self._name)
        alone = x509.BasicConstraints(ca=True, path_length=None)
        self._made = made.add_extension(alone, critical=True).sign(self._key, hashes.SHA256())
        self.public = directory / "ca.crt"
        self.public.write_bytes(self._made.public_bytes(serialization.Encoding.PEM))

    def server(self, *hosts: str, lasts: timedelta = HOUR) -> ssl.SSLContext:
        """What a server wraps its socket with; one that `lasts` less than nothing has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([_alternative(host) for host in hosts])
        made = _certificate(_name("server of a test"), key, lasts).issuer_name(self._name)
        signed = made.add_extension(names, critical=False).sign(self._key, hashes.SHA256())
        return _context(self._directory, signed, key)


def loopback(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """What a server on 127.0.0.1 wraps its socket with, and the file that its clients trust."""
    authority = Authority(directory)
    return authority.server("127.0.0.1"), authority.public


def _certificate(
    name: x509.Name, key: ec.EllipticCurvePrivateKey, lasts: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 2 * HOUR)
        .not_valid_after(now + lasts)
    )


def _context(
    directory: Path, made: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> ssl.SSLContext:
    public, private = directory / "tls.crt", directory / "tls.key"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
