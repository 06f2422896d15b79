"""Figures of the reference implementation for the models of tests/support/tinydiffusion.py, which
tests compare ours with. diffusers needs torch, so it has an environment of its own:

    uv venv DIR
    uv pip install --python DIR diffusers==0.42.1 transformers==5.24.0 torch==2.13.0 pillow
    PYTHONPATH=tests DIR/bin/python hack/diffusers_figures.py tests/support/diffusers.json

What is random is replaced by waves, so that both have the same noise.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import diffusers
import diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img as changing
import diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint as inpainting
import diffusers.schedulers.scheduling_euler_ancestral_discrete as ancestral
import torch

from support import tinydiffusion
from support.tinydiffusion import LOOPS, PROMPT, few, wave

torch.set_grad_enabled(False)


def tensor(*shape: int, like: float = 1.0) -> Any:
    """In diffusers' order of channels."""
    rows, high, wide, channels = shape
    return torch.tensor(wave(rows, channels, high, wide, like=like))


class Figures:
    """Of one model."""

    def __init__(self, directory: Path, *, xl: bool) -> None:
        self.xl = xl
        self.pipe = diffusers.DiffusionPipeline.from_pretrained(directory)
        self.pipe.set_progress_bar_config(disable=True)
        config = dict(self.pipe.scheduler.config)
        self.taught = {name: told for name, told in config.items() if not name.startswith("_")}

    def all(self) -> dict[str, list[float]]:
        found = {**self.networks(), **{name: self.loop(name) for name in LOOPS}}
        if not self.xl:
            found |= {"changed": self.changed(), "inpainted": self.inpainted()}
        return {name: few(told) for name, told in found.items()}

    def networks(self) -> dict[str, Any]:
        pipe = self.pipe
        told = pipe.encode_prompt(
            PROMPT, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True
        )
        text = torch.tensor(wave(2, tinydiffusion.POSITIONS, 32 if self.xl else 16))
        more: dict[str, Any] = {}
        if self.xl:
            numbers = torch.tensor([[64.0, 48, 0, 0, 64, 48]] * 2)
            more = {"added_cond_kwargs": {"text_embeds": self.whole(), "time_ids": numbers}}
        latents = tensor(1, 8, 8, 4) / pipe.vae.config.scaling_factor
        pixels = pipe.vae.encode(tensor(1, 64, 64, 3)).latent_dist.mean
        found = {
            "tokens": told[0],
            "unet": pipe.unet(tensor(2, 7, 9, 4), 601.0, text, **more).sample,
            "decoded": pipe.vae.decode(latents).sample,
            "encoded": pixels * pipe.vae.config.scaling_factor,
        }
        return {**found, "whole": told[2]} if self.xl else found

    @staticmethod
    def whole() -> Any:
        return torch.tensor(wave(2, 16))

    def loop(self, name: str) -> Any:
        told = LOOPS[name]
        self.pipe.scheduler = self.scheduler(told.scheduler)
        count = iter(range(1, 100))
        ancestral.randn_tensor = lambda shape, **_: torch.tensor(wave(*shape, like=next(count) / 9))
        latents = tensor(1, 8, 8, 4, like=1.3)
        return self.pipe(
            PROMPT, height=64, width=64, num_inference_steps=told.steps,
            guidance_scale=told.guidance, latents=latents, output_type="latent",
        ).images  # fmt: skip

    def scheduler(self, told: dict[str, Any]) -> Any:
        kind = getattr(diffusers, told.get("_class_name", "EulerDiscreteScheduler"))
        return kind.from_config({**self.taught, **told})

    def parts(self) -> dict[str, Any]:
        return {**self.pipe.components, "scheduler": self.scheduler({})}

    def changed(self) -> Any:
        pipe = changing.StableDiffusionImg2ImgPipeline(**self.parts())
        changing.randn_tensor = lambda shape, **_: torch.tensor(wave(*shape, like=1.3))
        return pipe(
            PROMPT, tensor(1, 8, 8, 4, like=0.7), 0.8, 6, guidance_scale=7.5, output_type="latent"
        ).images

    def inpainted(self) -> Any:
        """The left half stays."""
        pipe = inpainting.StableDiffusionInpaintPipeline(**self.parts())
        inpainting.randn_tensor = lambda shape, **_: torch.tensor(wave(*shape, like=1.3))
        mask = torch.zeros(1, 1, 64, 64)
        mask[..., 32:] = 1
        picture = tensor(1, 8, 8, 4, like=0.7)
        return pipe(
            PROMPT, picture, mask, picture, height=64, width=64, strength=1.0,
            num_inference_steps=6, guidance_scale=7.5, output_type="latent",
        ).images  # fmt: skip


def main(into: Path) -> None:
    versions = {"diffusers": diffusers.__version__, "torch": torch.__version__}
    found: dict[str, Any] = {"versions": versions}
    with tempfile.TemporaryDirectory() as directory:
        for name, xl in (("sd", False), ("xl", True)):
            path = tinydiffusion.make(Path(directory, name), xl=xl)
            found[name] = Figures(path, xl=xl).all()
    into.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
