"""From a directory as diffusers lays it out to a model that paints."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from ...weights import PIPELINE
from ..args import Args
from ..fit import usable
from ..loading import accelerated, arrays, as_load_failures
from . import parts, told
from .drawing import Habits, Model, Reader
from .room import Room
from .schedule import Schedule
from .words import Words

#: Kinds of pipelines -> their texts' encoders.
_PIPELINES = {
    "StableDiffusionPipeline": ("text_encoder",),
    "StableDiffusionXLPipeline": ("text_encoder", "text_encoder_2"),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the event loop needs of the model that the thread owns."""

    words: Words
    bytes: int
    details: dict[str, str]


def load(path: Path, args: Args, wanted: int | None) -> tuple[Model, Facts]:
    """`wanted`: tokens of a prompt. Blocks for as long as the disk takes. Raises LoadFailed."""
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    details = accelerated(args) if on_cpu else {}
    auto = "float32" if on_cpu else "float16"
    dtype: mx.Dtype = getattr(mx, auto if args.dtype == "auto" else args.dtype)
    with as_load_failures():
        model = _model(path, dtype, args, wanted)
    gc.collect()
    gc.freeze()  # nothing of the model is looked at by the collector again
    nets = (model.unet, model.vae, *(reader.encoder for reader in model.readers))
    details |= {
        "dtype": str(dtype),
        "sampler": model.schedule.name,
        "steps": str(model.habits.steps),
        "guidance": str(model.habits.guidance),
    }
    size = sum(one.nbytes for net in nets for one in arrays(net))
    return model, Facts(model.readers[0].words, size, details)


def _model(path: Path, dtype: mx.Dtype, args: Args, wanted: int | None) -> Model:
    index = told.config(path / PIPELINE)
    kind = index.get("_class_name")
    if kind not in _PIPELINES:
        raise ValueError(f"a {kind} is not known here, only {' and '.join(_PIPELINES)}")
    schedule = Schedule.of(told.config(path / "scheduler/scheduler_config.json"))
    readers = tuple(_reader(path, part, dtype, wanted) for part in _PIPELINES[kind])
    vae, unet = parts.autoencoder(path / "vae"), parts.denoiser(path / "unet", dtype)
    if vae.latents != unet.latents:
        raise ValueError(f"vae has {vae.latents} channels, and unet {unet.latents}")
    if not Room.of(path).side:
        raise ValueError("unet/config.json: sample_size is missing")
    xl = len(readers) > 1
    return Model(
        readers=readers,
        unet=unet,
        vae=vae,
        schedule=schedule,
        zeros=xl and index.get("force_zeros_for_empty_prompt", True),
        habits=Habits.of(args, schedule, xl=xl),
        on_cpu=mx.default_device() == mx.Device(mx.cpu),
    )


def _reader(path: Path, part: str, dtype: mx.Dtype, wanted: int | None) -> Reader:
    encoder = parts.text_encoder(path / part, dtype)
    positions = encoder.positions.weight.shape[0]
    words = path / part.replace("text_encoder", "tokenizer")
    return Reader(Words(words, positions, usable(wanted, positions)), encoder)
