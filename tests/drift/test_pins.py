"""What is tested is what is shipped: the pins of images are those of the environment."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENGINES = ROOT / "server-image/engines"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;#]+)")


def pins(file: Path) -> dict[str, str]:
    """Package and version of every line that names both."""
    found = (_PIN.match(line) for line in file.read_text().splitlines())
    return {match[1].lower(): match[2] for match in found if match}


def test_the_mlx_image_holds_the_versions_that_the_tests_have() -> None:
    """Packages of other platforms are not in the environment that is tested."""
    tested, shipped = pins(ROOT / "hack/constraints.txt"), pins(ENGINES / "mlx.txt")
    assert {"mlx", "mlx-lm", "llguidance", "fastapi", "httptools"} <= set(shipped)
    assert {name: tested[name] for name in shipped if name in tested} == {
        name: version for name, version in shipped.items() if name in tested
    }
    assert set(shipped) - set(tested) <= {"colorama", "httpx2-jsfetch", "mlx-metal"}


def test_what_an_engine_is_pinned_to_is_what_its_image_holds() -> None:
    for asked in ENGINES.glob("*.in"):
        wanted = pins(asked)
        assert wanted and wanted.items() <= pins(asked.with_suffix(".txt")).items()
