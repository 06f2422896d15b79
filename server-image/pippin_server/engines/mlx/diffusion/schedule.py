"""How much noise a picture has from step to step, as scheduler_config.json says that the model was
taught. Pure; needs no MLX.

All of the samplers here go the same way, Euler's, along latents whose picture has its full size
whatever their noise (x = picture + sigma * noise). DDIM without randomness is this way with another
end; latents of which the picture shrinks as noise comes are turned into these by `entry`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .told import expect

Doubles = npt.NDArray[np.float64]

_EULER, _ANCESTRAL, _DDIM = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DDIMScheduler",
)
#: Others go the same way in other steps: what they say of how the model was taught is taken.
_OTHERS = (
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
_BETAS = ("linear", "scaled_linear")
_PREDICTIONS = ("epsilon", "v_prediction")
_SPACINGS = ("linspace", "leading", "trailing")
#: What there is no other way of here, and what a config that does not say means.
_ONLY = {"rescale_betas_zero_snr": False, "trained_betas": None}
_ONLY_OF: dict[str, dict[str, Any]] = {
    _EULER: {
        "final_sigmas_type": "zero",
        "interpolation_type": "linear",
        "sigma_max": None,
        "sigma_min": None,
        "timestep_type": "discrete",
        "use_beta_sigmas": False,
        "use_exponential_sigmas": False,
        "use_karras_sigmas": False,
    },
    _ANCESTRAL: {},
    _DDIM: {"thresholding": False},
}


@dataclass(frozen=True, slots=True)
class Steps:
    """Of one picture. `times`: as the model knows them; `sigmas`: of noise, one more than times;
    `entry`: size of the noise that it begins as; 0: it begins as another picture with noise of
    sigma; `exit`: latents are divided by it at the end."""

    times: tuple[float, ...]
    sigmas: tuple[float, ...]
    entry: float
    exit: float = 1.0

    def later(self, left: int) -> Steps:
        """The last ones, for a picture that is there already."""
        begin = len(self.times) - left
        return Steps(self.times[begin:], self.sigmas[begin:], 0.0, self.exit)


@dataclass(frozen=True, slots=True)
class Schedule:
    """`kept`: of a picture's power at each time of the teaching; `v`: the model tells a mixture of
    noise and picture, and not the noise; `renewed`: noise comes anew at each step."""

    kept: Doubles
    spacing: str
    offset: int
    v: bool
    renewed: bool
    #: DDIM: whether the last step leaves no noise at all; None: another sampler.
    to_the_end: bool | None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Schedule:
        """Raises KeyError and ValueError."""
        kind = config["_class_name"]
        if kind not in (*_ONLY_OF, *_OTHERS):
            known = ", ".join((*_ONLY_OF, *_OTHERS))
            raise ValueError(f"_class_name {kind!r} is not known here, only {known}")
        expect(config, {**_ONLY, **_ONLY_OF.get(kind, {})})
        if kind == _DDIM and config.get("clip_sample", True):
            raise ValueError("clip_sample True is not known here, only False")
        return cls(
            kept=_kept(config),
            spacing=_one_of(config, "timestep_spacing", _SPACINGS, _usual_spacing(kind)),
            offset=config.get("steps_offset", 0),
            v=_one_of(config, "prediction_type", _PREDICTIONS, "epsilon") == "v_prediction",
            renewed=kind == _ANCESTRAL,
            to_the_end=config.get("set_alpha_to_one", True) if kind == _DDIM else None,
        )

    @property
    def hurried(self) -> bool:
        """Whether the model was taught to need a few steps only, and no guidance: no file says so,
        but only such ones begin at the very last time and tell noise."""
        return self.spacing == "trailing" and not self.v and self.to_the_end is None

    @property
    def name(self) -> str:
        if self.to_the_end is not None:
            return "ddim"
        return "euler_ancestral" if self.renewed else "euler"

    def steps(self, count: int) -> Steps:
        times = self._times(count)
        all_sigmas = np.sqrt((1 - self.kept) / self.kept)
        sigmas = np.interp(times, np.arange(len(self.kept)), all_sigmas)
        end = 0.0 if self.to_the_end in (None, True) else float(all_sigmas[0])
        entry = float(sigmas[0])
        if self.to_the_end is not None or self.spacing == "leading":
            entry = math.hypot(entry, 1)
        return Steps(tuple(times), (*map(float, sigmas), end), entry, math.hypot(end, 1))

    def _times(self, count: int) -> list[float]:
        taught = len(self.kept)
        found: npt.NDArray[Any]
        if self.spacing == "linspace":
            found = np.linspace(0, taught - 1, count)[::-1]
        elif self.spacing == "leading":
            found = np.arange(count)[::-1] * (taught // count) + self.offset
        else:
            found = np.round(np.arange(taught, 0, -taught / count)) - 1
        return [float(time) for time in found]


def _kept(config: Mapping[str, Any]) -> Doubles:
    first, last = config.get("beta_start", 0.0001), config.get("beta_end", 0.02)
    count = config.get("num_train_timesteps", 1000)
    if _one_of(config, "beta_schedule", _BETAS, "linear") == "linear":
        betas = np.linspace(first, last, count)
    else:
        betas = np.linspace(first**0.5, last**0.5, count) ** 2
    return np.cumprod(1 - betas)


def _usual_spacing(kind: str) -> str:
    return "leading" if kind in (_DDIM, "PNDMScheduler", "DDPMScheduler") else "linspace"


def _one_of(config: Mapping[str, Any], name: str, known: tuple[str, ...], default: str) -> str:
    told: str = config.get(name, default)
    if told not in known:
        raise ValueError(f"{name} {told!r} is not known here, only {' and '.join(known)}")
    return told
