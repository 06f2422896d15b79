"""`python -m pippin_server` and the program `pippin-server`."""

from __future__ import annotations

import sys

from .cli import main as run


def main() -> int:
    return run()


if __name__ == "__main__":
    sys.exit(main())
