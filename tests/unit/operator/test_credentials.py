"""Tokens rotate in their files; whoever asks gets the one that is there now."""

from pathlib import Path

import pytest
import yaml

from pippin_operator import cluster
from pippin_operator.cluster import Credentials
from pippin_operator.errors import ApiError


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("first\n")
    path = tmp_path / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "it",
                "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                "clusters": [{"name": "it", "cluster": {"server": "http://127.0.0.1:1"}}],
                "users": [{"name": "it", "user": {"tokenFile": str(tmp_path / "token")}}],
            }
        )
    )
    return path


async def test_the_watches_log_in_with_the_token_of_now(kubeconfig: Path):
    credentials = Credentials(str(kubeconfig))
    assert (await credentials.connection()).token == "first"
    kubeconfig.with_name("token").write_text("second")
    assert (await credentials.connection()).token == "second"


async def test_requests_read_the_token_again_when_it_is_old(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
):
    now = [100.0]
    monkeypatch.setattr(cluster, "monotonic", lambda: now[0])
    credentials = Credentials(str(kubeconfig))
    bearer = (await credentials.fresh()).api_key["BearerToken"]
    kubeconfig.with_name("token").write_text("second")
    assert (await credentials.fresh()).api_key["BearerToken"] == bearer
    now[0] += 61
    assert (await credentials.fresh()).api_key["BearerToken"] == "Bearer second"


async def test_without_credentials_the_error_says_so(tmp_path: Path):
    with pytest.raises(ApiError, match="no credentials"):
        await Credentials(None).fresh()
