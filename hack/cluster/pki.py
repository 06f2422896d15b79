"""Keys and certificates of one control plane: three authorities, EC keys, loopback names."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOOPBACK = "127.0.0.1"
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH

_LEAF_DAYS = 365
_AUTHORITY_DAYS = 3650
_PRIVATE = 0o600


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Subject:
    """Who a certificate is for: the user name and groups that Kubernetes will see, and names."""

    common_name: str
    groups: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()

    def name(self) -> x509.Name:
        """The X.509 name."""
        groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in self.groups]
        return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, self.common_name)])

    def alternative_names(self) -> x509.SubjectAlternativeName | None:
        """Its DNS names and addresses, if it has any."""
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in self.dns]
        names += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in self.ips]
        return x509.SubjectAlternativeName(names) if names else None


class Authority:
    """A certificate authority in a directory: made on first use, loaded afterwards."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.pair = _pair(directory, name)
        if not self.pair.cert.exists():
            self._create(name)
        self._cert = x509.load_pem_x509_certificate(self.pair.cert.read_bytes())
        key = serialization.load_pem_private_key(self.pair.key.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key

    def issue(self, name: str, subject: Subject, *usages: x509.ObjectIdentifier) -> Pair:
        """A new key and a certificate for it, in files called `name`."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(subject.name(), self._cert.subject, key.public_key(), _LEAF_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        if names := subject.alternative_names():
            builder = builder.add_extension(names, critical=False)
        pair = _pair(self.directory, name)
        _write(pair, builder.sign(self._key, hashes.SHA256()), key)
        return pair

    def _create(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = Subject(name).name()
        builder = (
            _builder(subject, subject, key.public_key(), _AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_SIGNS_CERTIFICATES, critical=True)
        )
        _write(self.pair, builder.sign(key, hashes.SHA256()), key)


def service_account_keys(directory: Path) -> None:
    """Make the RSA pair that signs and checks service account tokens."""
    private, public = directory / "service-accounts.key", directory / "service-accounts.pub"
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    write_private(private, _private_pem(key))
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner ever could read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE), "wb") as file:
        file.write(content)


_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))  # clocks that were set back a little
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _pair(directory: Path, name: str) -> Pair:
    return Pair(cert=directory / f"{name}.crt", key=directory / f"{name}.key")


def _write(pair: Pair, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    write_private(pair.key, _private_pem(key))
    pair.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))


def _private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
