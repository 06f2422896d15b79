"""Signatures, by the examples of the S3 API Reference."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pippin_server.models.sources.sigv4 import Keys, signed

KEYS = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
NOW = datetime(2013, 5, 24, tzinfo=UTC)
BUCKET = "https://examplebucket.s3.amazonaws.com"


@pytest.mark.parametrize(
    ("path", "headers", "signature"),
    [
        (
            "/test.txt",
            {"Range": "bytes=0-9"},
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "/?lifecycle",
            {},
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "/?max-keys=2&prefix=J",
            {},
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_signatures_are_those_of_the_reference(path, headers, signature):
    added = signed(BUCKET + path, headers, KEYS, "us-east-1", NOW)
    assert added["authorization"].endswith(f"Signature={signature}")


def test_a_session_is_signed_too():
    added = signed(BUCKET, {}, Keys("a", "b", "session"), "eu-west-1", NOW)
    assert added["x-amz-security-token"] == "session"
    assert "x-amz-security-token," in added["authorization"] + ","
    assert "20130524/eu-west-1/s3/aws4_request" in added["authorization"]
