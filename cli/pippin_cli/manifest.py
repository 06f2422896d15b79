"""From what was typed to an APIKey. Pure."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from pippin_contract.wire import API_VERSION

_AGE = re.compile(r"(\d{1,6})([mhd])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}

#: Flag and field of each limit.
LIMITS = {
    "rpm": "rpm",
    "tpm": "tpm",
    "tokens_per_day": "tokensPerDay",
    "concurrency": "concurrency",
}


def expiry(text: str, now: datetime) -> str:
    """`30d`, `12h` from now, or a date or time, as a timestamp in UTC.

    A date ends with its day. Raises ArgumentTypeError.
    """
    if age := _AGE.fullmatch(text):
        return _stamp(now + int(age[1]) * _UNITS[age[2]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: say 30d, 12h, 2027-01-31 or 2027-01-31T12:00:00Z"
        ) from error
    if len(text) == len("2027-01-31"):
        moment += timedelta(days=1)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if moment <= now:
        raise argparse.ArgumentTypeError(f"{text} is over already")
    return _stamp(moment)


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def api_key(typed: argparse.Namespace) -> dict[str, Any]:
    """The object to create; fields that were not typed are left out."""
    limits = {field: getattr(typed, flag) for flag, field in LIMITS.items() if getattr(typed, flag)}
    spec: dict[str, Any] = {"models": typed.model}
    if limits:
        spec["limits"] = limits
    if typed.owner:
        spec["owner"] = typed.owner
    if typed.description:
        spec["description"] = typed.description
    if typed.expires:
        spec["expiresAt"] = typed.expires
    if typed.rotate_every:
        spec["rotation"] = {"interval": typed.rotate_every, "overlap": typed.overlap}
    return {
        "apiVersion": API_VERSION,
        "kind": "APIKey",
        "metadata": {"name": typed.name},
        "spec": spec,
    }
