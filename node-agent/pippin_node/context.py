"""What every Pod of this node works with. Made once, by the agent."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from .backoff import Schedule
from .client import Client
from .events import Recorder
from .policy import Rules
from .ports import PortBook
from .settings import Settings
from .sources import Sources


@dataclass(frozen=True)
class Context:
    """`facts` holds the node's own values for the downward API; `inherited` what processes get."""

    client: Client
    settings: Settings
    node: str
    rules: Rules
    recorder: Recorder
    sources: Sources
    ports: PortBook
    facts: Mapping[str, str]
    inherited: Mapping[str, str]
    now: Callable[[], datetime]
    #: Held while a process is started: one at a time, so that the loop has time for all else.
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def schedule(self) -> Schedule:
        settings = self.settings
        return Schedule(
            settings.backoff_seconds, settings.backoff_max_seconds, settings.backoff_reset_seconds
        )


#: What a native process inherits of the agent's environment; nothing else.
INHERITED = (
    "LANG LC_ALL LC_CTYPE TZ SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE"
    " HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy"
).split()


def inherited(environ: Mapping[str, str], more: tuple[str, ...]) -> dict[str, str]:
    """The short list, and a PATH that begins with the agent's own environment."""
    kept = {name: environ[name] for name in (*INHERITED, *more) if name in environ}
    kept["PATH"] = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    return kept


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """A time of the API or of a record; nanoseconds are cut to microseconds."""
    head, _, rest = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{head}.{(rest + '000000')[:6]}+00:00")
