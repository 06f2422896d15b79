"""From a wish to its pixels, a step at a time: whoever steps may leave after each."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ...media import Painting
from ..args import Args
from . import pixels
from .clip import Clip
from .job import Job, Pixels
from .schedule import Schedule, Steps
from .unet import Context, UNet
from .vae import Vae
from .words import Words

#: Something was computed, or the picture is there.
Step = Pixels | None


@dataclass(frozen=True, slots=True)
class Habits:
    """How a model paints. `guidance`: how much more the prompt counts than an empty one; up to 1:
    it alone counts. `strength`: share of the steps that a picture to be changed goes through, and
    one of which a part is painted anew."""

    steps: int
    guidance: float
    strength: tuple[float, float]

    @classmethod
    def of(cls, args: Args, schedule: Schedule, *, xl: bool) -> Habits:
        """What nobody tells is diffusers' own, or what those advise who made the hurried models."""
        usual = (4, 0.0) if schedule.hurried else (50, 5.0 if xl else 7.5)
        strength = (0.8, 1.0) if args.strength is None else (args.strength, args.strength)
        guidance = usual[1] if args.guidance is None else args.guidance
        return cls(args.steps or usual[0], guidance, strength)


@dataclass(frozen=True, slots=True)
class Reader:
    """Of prompts."""

    words: Words
    encoder: Clip


@dataclass(frozen=True, slots=True)
class Model:
    """`readers`: two of SDXL's; `zeros`: no prompt means nothing, not what an empty one does."""

    readers: tuple[Reader, ...]
    unet: UNet
    vae: Vae
    schedule: Schedule
    zeros: bool
    habits: Habits
    on_cpu: bool

    @property
    def dtype(self) -> mx.Dtype:
        found: mx.Dtype = self.unet.conv_in.weight.dtype
        return found


class Drawing:
    """One picture. Iterated on the thread that owns the model."""

    def __init__(self, model: Model, job: Job) -> None:
        self._model = model
        self._wish: Painting = job.painting
        self._seed = job.seed
        self._count = job.steps or model.habits.steps
        self._guided = model.habits.guidance > 1

    def steps(self) -> Iterator[Step]:
        """Raises PromptRefused and PromptTooLong."""
        wish, model = self._wish, self._model
        size = (wish.width, wish.height)
        source = pixels.read(wish.sources[0], "image", size) if wish.sources else None
        shown = None if wish.mask is None else pixels.kept(wish.mask, size)
        context = self._context()
        mx.eval(context.tokens)
        yield None
        steps = self._steps(source is not None, masked=shown is not None)
        picture = None
        if source is not None:
            picture = yield from self._computed(model.vae.encode(_as_numbers(source)))
        latents = yield from self._painted(steps, context, picture, shown)
        made = yield from self._computed(model.vae.decode(latents / steps.exit))
        painted = _as_pixels(made)
        if source is not None and shown is not None:
            painted = pixels.blended(source, painted, shown)
        mx.clear_cache()  # the next one may be of another size
        yield painted

    def _steps(self, changes: bool, *, masked: bool) -> Steps:
        schedule, strength = self._model.schedule, self._model.habits.strength[masked]
        if not changes or (masked and strength == 1):
            return schedule.steps(self._count)
        count = max(self._count, math.ceil(1 / strength))
        return schedule.steps(count).later(int(count * strength))

    def _context(self) -> Context:
        """Of no prompt, and of the prompt; of the prompt alone where that is not compared."""
        told = [self._meaning(self._wish.prompt)]
        if self._guided:
            told.insert(0, self._nothing(told[0]))
        tokens = mx.concatenate([one.tokens for one in told])
        if told[0].whole is None:
            return Context(tokens)
        whole = mx.concatenate([one.whole for one in told if one.whole is not None])
        high, wide = self._wish.height, self._wish.width
        return Context(tokens, whole, (high, wide, 0, 0, high, wide))

    def _nothing(self, prompt: Context) -> Context:
        if not self._model.zeros or prompt.whole is None:
            return self._meaning("")
        return Context(mx.zeros_like(prompt.tokens), mx.zeros_like(prompt.whole))

    def _meaning(self, text: str) -> Context:
        meanings = []
        for reader in self._model.readers:
            ids, end = reader.words.read(text)
            meanings.append(reader.encoder(mx.array([ids]), mx.array([end])))
        if len(meanings) == 1:
            return Context(meanings[0].last)
        tokens = mx.concatenate([meaning.before for meaning in meanings], axis=-1)
        return Context(tokens, meanings[-1].whole)

    def _painted(
        self, steps: Steps, context: Context, picture: mx.array | None, shown: Pixels | None
    ) -> Generator[Step, None, mx.array]:
        """Latents without noise. `picture`: latents that it begins with; `shown`: what of its
        pixels stays."""
        keys = mx.random.split(mx.random.key(self._seed), len(steps.times) + 1)
        factor = self._model.vae.factor
        shape = (
            1,
            self._wish.height // factor,
            self._wish.width // factor,
            self._model.vae.latents,
        )
        noise = mx.random.normal(shape, key=keys[0])
        latents = noise * (steps.entry or steps.sigmas[0])
        if picture is not None and not steps.entry:
            latents = picture + latents
        stays = None if shown is None else mx.array(pixels.cells(shown, factor))
        for number, time in enumerate(steps.times):
            told = yield from self._told(latents, steps.sigmas[number], time, context)
            latents = self._less_noisy(
                latents, told, steps.sigmas[number : number + 2], keys[number + 1]
            )
            if picture is not None and stays is not None:
                known = picture + noise * steps.sigmas[number + 1]
                latents = mx.where(stays, known, latents)
            mx.eval(latents)
            yield None
        return latents

    def _told(
        self, latents: mx.array, sigma: float, time: float, context: Context
    ) -> Generator[Step, None, mx.array]:
        """By the network."""
        seen = (latents / math.hypot(sigma, 1)).astype(self._model.dtype)
        rows = mx.repeat(seen, context.tokens.shape[0], axis=0)
        told = yield from self._computed(self._model.unet.steps(rows, time, context))
        told = told.astype(mx.float32)
        if not self._guided:
            return told
        empty, prompt = mx.split(told, 2)
        return empty + self._model.habits.guidance * (prompt - empty)

    def _less_noisy(
        self, latents: mx.array, told: mx.array, sigmas: tuple[float, ...], key: mx.array
    ) -> mx.array:
        """`sigmas`: before and after."""
        before, after = sigmas
        if self._model.schedule.v:
            size = math.hypot(before, 1)
            told = latents * (before / size**2) + told / size
        if not self._model.schedule.renewed:
            return latents + told * (after - before)
        renewed = after * math.sqrt(before**2 - after**2) / before
        left = math.sqrt(after**2 - renewed**2)
        noise = mx.random.normal(latents.shape, key=key) * renewed
        return latents + told * (left - before) + noise

    def _computed(self, parts: Iterator[mx.array]) -> Generator[Step, None, mx.array]:
        """The last of them. A CPU takes seconds for a part, and GPUs are quicker without a stop."""
        for part in parts:
            if self._model.on_cpu:
                mx.eval(part)
                yield None
        return part


def _as_numbers(picture: Pixels) -> mx.array:
    """From -1 to 1."""
    return mx.array(picture)[None].astype(mx.float32) / 127.5 - 1


def _as_pixels(numbers: mx.array) -> Pixels:
    whole = mx.round(mx.clip(numbers[0] * 127.5 + 127.5, 0, 255)).astype(mx.uint8)
    found: Pixels = np.array(whole)
    return found
