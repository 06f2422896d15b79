"""What models that paint take of memory, which of their files are read, and their arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from pippin_contract.serverconfig import PromptCacheConfig
from pippin_server.engines import weights
from pippin_server.engines.mlx.args import Args
from pippin_server.engines.mlx.args import parse as parse_args
from pippin_server.engines.mlx.diffusion.loading import load
from pippin_server.engines.mlx.diffusion.room import Room
from pippin_server.engines.mlx.fit import Fitting, Wish
from pippin_server.hardware.budget import Budget
from support import tinydiffusion


def test_memory_is_reckoned_for_the_weights_and_one_picture(tmp_path: Path) -> None:
    path, args = tinydiffusion.make(tmp_path / "sd"), Args()
    wish = Wish(None, 1, PromptCacheConfig(enabled=False), args, on_cpu=True, whole=True)
    fit = Fitting(wish, Budget(2**40, "x")).of(path)
    assert fit.weights == load(path, args, None)[1].bytes
    room = Room.of(path)
    assert room.side == 64
    assert fit.needed - fit.weights >= room.bytes() > 64 * 64 * 8 * 4
    small = Fitting(wish, Budget(2**20, "the container's limit is")).of(path)
    assert small.problem is not None
    assert "for one picture of 64x64" in small.problem
    assert "contextLength" not in small.problem and "quantised" not in small.problem


def test_the_estimate_is_not_less_than_what_was_measured(tmp_path: Path) -> None:
    """MiB that SD 1.x's decoder took beside its weights, at most, as MLX counts them."""
    path = tinydiffusion.make(tmp_path / "large")
    tinydiffusion.change(path, "vae/config.json", block_out_channels=[128, 256, 512, 512])
    for side, taken in ((256, 361), (512, 1036)):
        tinydiffusion.change(path, "unet/config.json", sample_size=side // 8)
        assert taken < Room.of(path).bytes() / 2**20 < 1.6 * taken


def test_larger_pictures_are_made_where_there_is_memory_for_them() -> None:
    room = Room(side=512, pixel=8192)
    assert room.most(None) == 1024**2
    assert room.most(2**40) == 1024**2
    assert room.most(room.bytes() + 100 * 8192) == 512**2 + 100
    assert room.most(0) == 512**2


def test_arguments_of_pictures_are_those_of_models_that_paint() -> None:
    told = ["--steps=9", "--guidance=0", "--strength=0.4"]
    found = parse_args(told, paints=True)
    assert (found.steps, found.guidance, found.strength) == (9, 0.0, 0.4)
    with pytest.raises(ValueError, match="unrecognized arguments: --steps=9"):
        parse_args(told)
    with pytest.raises(ValueError, match="must be 0.01 to 1.0, got 2"):
        parse_args(["--strength", "2"], paints=True)


def test_of_the_same_weights_twice_the_whole_ones_are_read(tmp_path: Path) -> None:
    for name in ("model", "model.fp16", "model.non_ema"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    assert [path.name for path in weights.chosen(tmp_path)] == ["model.safetensors"]
    (tmp_path / "model.safetensors").unlink()
    assert [path.name for path in weights.chosen(tmp_path)] == ["model.fp16.safetensors"]
