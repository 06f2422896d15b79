"""Keys and certificates of a node."""

from __future__ import annotations

from datetime import timedelta

from cryptography import x509
from cryptography.x509.oid import NameOID

from pippin_node import certificates


def test_a_request_carries_the_identity_of_the_node() -> None:
    pem = certificates.signing_request(certificates.new_key(), "mini", ["mini", "127.0.0.1"])
    request = x509.load_pem_x509_csr(pem)
    subject = request.subject
    assert subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "system:node:mini"
    assert subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:nodes"
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mini"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_a_certificate_is_renewed_when_most_of_its_life_is_over() -> None:
    now = certificates.utc_now()
    bundle = certificates.self_signed("mini", ["127.0.0.1"], now)
    assert not certificates.renewal_due(bundle, now)
    assert not certificates.renewal_due(bundle, now + timedelta(days=290))
    assert certificates.renewal_due(bundle, now + timedelta(days=293))


def test_a_certificate_for_another_address_is_not_the_right_one() -> None:
    bundle = certificates.self_signed("mini", ["mini", "127.0.0.1"], certificates.utc_now())
    assert certificates.same_names(bundle, ["127.0.0.1", "mini"])
    assert not certificates.same_names(bundle, ["mini", "10.0.0.1"])
