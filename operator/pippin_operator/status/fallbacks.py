"""Whether the models that shall answer instead can: they are there, do the same, and no circle."""

from __future__ import annotations

from collections.abc import Callable

from .conditions import Verdict, no, yes

KIND = "FallbacksValid"
NONE = yes(KIND, "NoneGiven")
#: By name: its task, and whom it names; None: there is no such ModelDeployment.
Look = Callable[[str], tuple[str, tuple[str, ...]] | None]


def judge(name: str, look: Look) -> Verdict:
    """Of the ModelDeployment `name`. The gateway asks nobody twice, so a circle costs no request
    its answer; it is told because nobody means it."""
    own = look(name)
    if own is None or not own[1]:
        return NONE
    task, named = own
    absent = [other for other in named if look(other) is None]
    if absent:
        return no(
            KIND,
            "FallbackNotFound",
            f"no ModelDeployment of this namespace is called {', '.join(absent)}: make it, or take"
            " it out of fallbacks",
        )
    circle = _circle(name, look)
    if circle:
        return no(KIND, "FallbackCycle", f"{' → '.join(circle)}: each is asked only once")
    other_task = [other for other in named if (look(other) or own)[0] != task]
    if other_task:
        return no(
            KIND,
            "FallbackTaskDiffers",
            f"{', '.join(other_task)}: not for {task} like this one, so never asked",
        )
    return yes(KIND, "AllFound")


def _circle(name: str, look: Look) -> list[str]:
    """A way from the name back to it, found depth first; empty: there is none."""
    seen: set[str] = set()
    paths = [[name]]
    while paths:
        path = paths.pop()
        for other in reversed((look(path[-1]) or ("", ()))[1]):
            if other == name:
                return [*path, other]
            if other not in seen:
                seen.add(other)
                paths.append([*path, other])
    return []
