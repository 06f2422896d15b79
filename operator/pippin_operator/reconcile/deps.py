"""What every run shares: the API server, what is known of it, the installation, the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from pippin_contract.serverconfig import PublicKey

from ..api.resources import Manifest
from ..cluster import Cluster
from ..render.context import RenderContext
from ..scaling import Scales
from ..settings import Settings
from ..store import Store


@dataclass
class Installation:
    """What is found out about the cluster while the operator runs."""

    public_keys: tuple[PublicKey, ...] = ()
    #: What opens the gateways' /admin.
    admin_token: str = field(default="", repr=False)
    monitoring_api: bool = False
    #: The Secret with the keys of providers outside, as it was last seen, and who may change it.
    providers: Manifest = field(default_factory=dict, repr=False)
    handing_over: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True)
class Deps:
    """`now` is aware UTC; `random_bytes` makes keys."""

    settings: Settings
    cluster: Cluster
    store: Store
    installation: Installation
    now: Callable[[], datetime]
    random_bytes: Callable[[int], bytes]
    scales: Scales = field(default_factory=Scales)

    @property
    def context(self) -> RenderContext:
        return RenderContext(
            server_image=self.settings.server_image,
            image_pull_policy=self.settings.image_pull_policy,
            public_keys=self.installation.public_keys,
            monitoring_api=self.installation.monitoring_api,
        )
