"""Whether the models that shall answer instead can: they are there, do the same, and no circle."""

from __future__ import annotations

from collections.abc import Callable

from pippin_contract import reach

from .conditions import Verdict, no, yes

KIND = "FallbacksValid"
NONE = yes(KIND, "NoneGiven")
_NOBODY: tuple[str, tuple[str, ...]] = ("", ())
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
    circle = reach.circle(name, lambda one: (look(one) or _NOBODY)[1])
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
