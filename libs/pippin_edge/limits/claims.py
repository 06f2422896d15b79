"""What one request wants of each limit that holds for it, and what a limit says."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """Of a limit, by its name in an object's spec."""

    #: Requests in any 60 s.
    RPM = "rpm"
    #: Tokens in any 60 s.
    TPM = "tpm"
    #: Tokens of a day, from midnight to midnight UTC.
    TOKENS_PER_DAY = "tokensPerDay"
    #: Requests under way.
    CONCURRENCY = "concurrency"

    # An enum's own hash is computed in Python, for every look into a table.
    __hash__ = str.__hash__


def key_owner(ref: str) -> str:
    """Whose a key's limits are."""
    return f"key/{ref}"


def model_owner(ref: str) -> str:
    """Whose a model's limits are."""
    return f"model/{ref}"


def meter_name(kind: Kind, owner: str) -> str:
    """Under which a limit of an owner is counted where it has a name."""
    return f"{kind}/{owner}"


#: Their cost is a guess until the answer is there.
TOKENS = frozenset({Kind.TPM, Kind.TOKENS_PER_DAY})


class Claim(NamedTuple):
    """One limit of one request. `cost`: requests or tokens, never more than the limit."""

    kind: Kind
    #: Whose limit: key/NAMESPACE/NAME or model/NAMESPACE/NAME.
    owner: str
    limit: int
    cost: int = 1

    @property
    def meter(self) -> str:
        """The name under which it is counted."""
        return meter_name(self.kind, self.owner)

    def settled(self, tokens: Mapping[str, int]) -> int:
        """What it cost when the request is over and took so many tokens of each owner's."""
        if self.kind in TOKENS:
            return tokens.get(self.owner, 0)
        return 0 if self.kind is Kind.CONCURRENCY else self.cost


class Verdict(NamedTuple):
    """What a limit says of one request. Times in seconds from now."""

    limit: int
    remaining: int
    #: Until all of it is there again.
    reset_after: float
    #: Until this request fits; 0: it does.
    wait: float
