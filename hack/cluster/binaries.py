"""Where the pinned Kubernetes programs are, and how they get there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

BUILD = Path(__file__).parents[1] / "tools" / "build.sh"
COMMAND = "hack/tools/build.sh"


class NotBuilt(Exception):
    """The programs are not in the cache; the message says how to make them."""


def directory(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder with etcd, kube-*, kubectl and helm.

    Builds them first when CI=true or PIPPIN_BUILD=1 (minutes), else raises NotBuilt.
    """
    found = subprocess.run([str(BUILD), "--where"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        if environ.get("CI") != "true" and environ.get("PIPPIN_BUILD") != "1":
            raise NotBuilt(
                f"the Kubernetes programs are not built yet: run {COMMAND}"
                " (5 to 15 minutes, once), or set PIPPIN_BUILD=1"
            )
        if subprocess.run([str(BUILD)], check=False).returncode != 0:
            raise NotBuilt(f"{COMMAND} failed; its output above says why")
    return Path(found.stdout.strip())
