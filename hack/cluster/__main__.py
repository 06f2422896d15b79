"""`python -m cluster`: a control plane by hand, and the approver that runs beside it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import approver, binaries
from .controlplane import ControlPlane, serving_approver
from .processes import StartFailed


def main() -> int:
    """`up`, `down` or `approver`, on one state directory."""
    parser = argparse.ArgumentParser(prog="cluster", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "approver"])
    parser.add_argument("--state", type=Path, required=True, help="directory of the cluster")
    arguments = parser.parse_args()
    state: Path = arguments.state.absolute()
    try:
        if arguments.command == "up":
            return _up(state)
        if arguments.command == "down":
            ControlPlane.open(state).remove()
            return 0
        approver.run(serving_approver(state))
    except (StartFailed, binaries.NotBuilt) as error:
        print(f"error: {error}", file=sys.stderr)
    except FileNotFoundError as error:
        print(f"error: there is no cluster in {state}: {error}", file=sys.stderr)
    return 1


def _up(state: Path) -> int:
    if state.exists():
        plane = ControlPlane.open(state)
    else:
        plane = ControlPlane.create(state, binaries.directory(), durable=True)
    plane.start()
    print(f"export KUBECONFIG={plane.kubeconfig} PATH={plane.binaries}:$PATH")
    return 0


if __name__ == "__main__":
    sys.exit(main())
