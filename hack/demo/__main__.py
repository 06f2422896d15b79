"""`python -m demo up|down STATE`: called by hack/demo.sh and hack/demo-down.sh."""

from __future__ import annotations

import argparse
import fcntl
import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import openai
import weights
from cluster.api import Refused
from cluster.binaries import NotBuilt
from cluster.processes import StartFailed
from cluster.stack import StepFailed

from . import steps
from .story import Failed, Story

_INTERRUPTED = 130


def main() -> int:
    """Run the steps and turn what goes wrong into words."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("command", choices=["up", "down"])
    parser.add_argument("state", type=Path, help="directory of the demo")
    arguments = parser.parse_args()
    state, story = arguments.state.absolute(), Story()
    act = steps.run if arguments.command == "up" else steps.remove
    try:
        with _alone(state.parent):
            act(state, story)
        return 0
    except KeyboardInterrupt:
        story.plain("\ninterrupted")
        _what_now(story)
        return _INTERRUPTED
    except subprocess.CalledProcessError as error:
        words = (error.stderr or error.output or "").strip()
        _failed(story, f"`{' '.join(map(str, error.cmd))}` failed: {words}")
    except (
        *(Failed, NotBuilt, StartFailed, StepFailed, Refused, weights.WeightsFailed),
        *(openai.OpenAIError, OSError, http.client.HTTPException, subprocess.TimeoutExpired),
    ) as error:
        _failed(story, str(error))
    return 1


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One at a time works in a directory, which goes when nothing is left in it."""
    home.mkdir(parents=True, exist_ok=True)
    directory = os.open(home, os.O_RDONLY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(f"another make demo or demo-down is at work in {home}") from None
        yield
    finally:
        os.close(directory)
        with suppress(OSError):
            home.rmdir()


def _failed(story: Story, why: str) -> None:
    story.plain(f"\nerror: {story.step_under_way or 'demo'}: {why}")
    if story.log:
        story.plain(f"Its logs: {story.log}")
    _what_now(story)


def _what_now(story: Story) -> None:
    story.plain("What was made so far is kept: `make demo` goes on with it,")
    story.plain("`make demo-down` ends and removes it.")


if __name__ == "__main__":
    sys.exit(main())
