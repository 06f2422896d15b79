"""Which addresses weights may come from."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from pippin_server.models.sources.guard import Guard

METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fe80::1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
]
INSIDE = ["10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fc00::1", "::ffff:10.0.0.1"]
NOWHERE = ["127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "240.0.0.1", "192.0.2.1"]
PUBLIC = ["1.1.1.1", "2606:4700::1111"]


@pytest.mark.parametrize("address", METADATA)
def test_a_clouds_metadata_service_is_out_of_reach_whatever_is_allowed(address: str):
    everything = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    assert not Guard(everything).allows(ip_address(address), private=True)


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside_are_for_sources_that_may(address: str):
    assert Guard().allows(ip_address(address), private=True)
    assert not Guard().allows(ip_address(address), private=False)


@pytest.mark.parametrize("address", NOWHERE)
def test_loopback_and_what_is_no_address_are_refused(address: str):
    assert not Guard().allows(ip_address(address), private=True)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_for_all(address: str):
    assert Guard().allows(ip_address(address), private=False)


def test_a_network_can_be_allowed():
    guard = Guard((ip_network("127.0.0.0/8"), ip_network("10.1.0.0/16")))
    allowed = ["127.0.0.1", "10.1.0.9"]
    assert all(guard.allows(ip_address(address), private=False) for address in allowed)
    assert not guard.allows(ip_address("10.2.0.1"), private=False)
