"""A real S3 server (moto), which checks signatures and rights; on loopback, for one test module."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from support.gateway import free_port

ROOT = Path(__file__).resolve().parents[2]
_IAM = (
    "AWS4-HMAC-SHA256 Credential=x/20130524/us-east-1/iam/aws4_request, SignedHeaders=host,"
    " Signature=x"
)
_EVERYTHING = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
)
_VERSION = "2010-05-08"


@dataclass
class S3:
    """An endpoint, and the only user that it knows."""

    url: str
    access: str = ""
    secret: str = ""

    def put(self, bucket: str, files: dict[str, bytes]) -> None:
        """Objects by key; asked without a signature, which the server lets pass for once."""
        with httpx.Client(base_url=self.url, trust_env=False) as client:
            self._unlocked(client, len(files) + 1)
            client.put(f"/{bucket}").raise_for_status()
            for key, content in files.items():
                client.put(f"/{bucket}/{key}", content=content).raise_for_status()
            self._unlocked(client, 0)

    def enroll(self) -> None:
        """Make the user."""
        with httpx.Client(base_url=self.url, trust_env=False) as client:
            self._unlocked(client, 3)
            self._iam(client, Action="CreateUser")
            self._iam(
                client,
                Action="PutUserPolicy",
                PolicyName="all",
                PolicyDocument=_EVERYTHING,
            )
            told = self._iam(client, Action="CreateAccessKey")
            self.access = re.findall("<AccessKeyId>(.*)</AccessKeyId>", told)[0]
            self.secret = re.findall("<SecretAccessKey>(.*)</SecretAccessKey>", told)[0]
            self._unlocked(client, 0)

    def credentials(self, directory: Path, **changed: str) -> Path:
        """A mounted Secret: one file a key."""
        directory.mkdir(parents=True, exist_ok=True)
        told = {
            "AWS_ACCESS_KEY_ID": self.access,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": self.url,
            **changed,
        }
        for name, value in told.items():
            (directory / name).write_text(value + "\n")
        return directory

    def _unlocked(self, client: httpx.Client, actions: int) -> None:
        client.post("/moto-api/reset-auth", content=str(actions)).raise_for_status()

    def _iam(self, client: httpx.Client, **query: str) -> str:
        form = {"Version": _VERSION, "UserName": "pippin", **query}
        answer = client.post("/", data=form, headers={"authorization": _IAM})
        assert answer.status_code == 200, answer.text
        return answer.text


@contextmanager
def s3(directory: Path) -> Iterator[S3]:
    told = subprocess.run([ROOT / "hack/moto.sh"], capture_output=True, text=True, check=True)
    port = free_port()
    command = [told.stdout.strip(), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (directory / "moto.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        running = S3(f"http://127.0.0.1:{port}")
        _wait(running.url, process)
        running.enroll()
        yield running
    finally:
        process.kill()
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            httpx.get(f"{url}/moto-api/", trust_env=False)
            return
        except httpx.TransportError:
            assert process.poll() is None, "moto ended: see moto.log"
            assert time.monotonic() < deadline, "moto does not answer"
            time.sleep(0.05)
