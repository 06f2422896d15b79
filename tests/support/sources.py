"""What the tests of model sources share: a fetch as the server does it, and models to fetch."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from pippin_server.engines.base import Transfer
from pippin_server.models import loader
from pippin_server.models.sources.base import Surroundings
from support.webserver import Files

LOOPBACK = (ip_network("127.0.0.0/8"),)
#: Enough for what only fetches, and does not load.
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": bytes(range(256)) * 4096,
}


def listing(contents: dict[str, bytes]) -> bytes:
    """What S3 says is in a bucket with these objects."""
    entries = "".join(
        f"<Contents><Key>{key}</Key><Size>{len(content)}</Size>"
        f"<ETag>&quot;{hashlib.md5(content).hexdigest()}&quot;</ETag></Contents>"
        for key, content in contents.items()
    )
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<ListBucketResult xmlns="{space}">{entries}</ListBucketResult>'.encode()


def offer(bucket: Files, *models: str, files: dict[str, bytes] = FILES) -> None:
    """Models in the bucket `bucket`, which is a plain web server that lists itself."""
    every = {f"{model}/{name}": content for model in models for name, content in files.items()}
    for key, content in every.items():
        bucket.contents[f"/bucket/{key}"] = content
    bucket.contents["/bucket/"] = listing(every)


class Pulled:
    """A directory, and what was told on the way there."""

    def __init__(self, path: Path, told: list[tuple[int, str, Transfer | None]]) -> None:
        self.path = path
        self.told = told

    @property
    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.path)): path.read_bytes()
            for path in self.path.rglob("*")
            if path.is_file()
        }

    @property
    def transfer(self) -> Transfer:
        """The last word."""
        found = self.told[-1][2]
        assert found is not None
        return found


def pull(uri: str, cache: Path, **changed: Any) -> Pulled:
    """Raises LoadFailed. `changed`: fields of the surroundings."""
    around = Surroundings(cache, networks=LOOPBACK, stall=5)
    told: list[tuple[int, str, Transfer | None]] = []

    def tell(percent: int, message: str, transfer: Transfer | None = None) -> None:
        told.append((percent, message, transfer))

    path = loader.fetch(uri, replace(around, **changed), tell)
    return Pulled(path, told)
