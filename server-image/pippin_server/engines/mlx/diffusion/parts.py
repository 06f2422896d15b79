"""The networks of a pipeline, each from its directory: diffusers' names and layouts become ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from ...weights import chosen
from . import clip, told, unet, vae

_Names = tuple[tuple[str, str], ...]

#: diffusers' names of the weights, also those of its first years -> ours, in this order.
_BLOCKS: _Names = (
    (".key.", ".to_k."),
    (".query.", ".to_q."),
    (".value.", ".to_v."),
    (".proj_attn.", ".to_out."),
    (".to_out.0.", ".to_out."),
    (".ff.net.0.proj.", ".ff_in."),
    (".ff.net.2.", ".ff_out."),
    (".downsamplers.0.", ".downsample."),
    (".upsamplers.0.", ".upsample."),
)
_OF_UNET: _Names = (*_BLOCKS, (".downsample.conv.", ".downsample."))
_OF_VAE: _Names = (
    *_BLOCKS,
    (".mid_block.attentions.0.group_norm.", ".mid_block.group_norm."),
    (".mid_block.attentions.0.", ".mid_block.attention."),
)
_OF_TEXT: _Names = (
    ("text_model.", ""),
    ("embeddings.token_embedding.", "words."),
    ("embeddings.position_embedding.", "positions."),
    ("encoder.layers.", "layers."),
    (".mlp.", "."),
)
#: Which is counted, and not learnt.
_UNUSED = "embeddings.position_ids"


def text_encoder(path: Path, dtype: mx.Dtype) -> clip.Clip:
    """Raises KeyError, ValueError and OSError, as the others do."""
    made = clip.Clip(clip.Shape.of(told.config(path / "config.json")))
    _fill(made, path, _OF_TEXT, dtype)
    return made


def denoiser(path: Path, dtype: mx.Dtype) -> unet.UNet:
    made = unet.UNet(unet.Shape.of(told.config(path / "config.json")))
    _fill(made, path, _OF_UNET, dtype)
    return made


def autoencoder(path: Path) -> vae.Vae:
    """In 32 bits: many were taught in these alone, and become black in 16."""
    made = vae.Vae(vae.Shape.of(told.config(path / "config.json")))
    _fill(made, path, _OF_VAE, mx.float32)
    return made


def _fill(net: Any, path: Path, names: _Names, dtype: mx.Dtype) -> None:
    """Raises ValueError for weights that do not belong to the config."""
    found: dict[str, mx.array] = {}
    for file in chosen(path):
        loaded: Any = mx.load(str(file))
        found.update(_renamed(loaded, names))
    try:
        net.load_weights(list(found.items()))
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    net.set_dtype(dtype)
    mx.eval(net.parameters())


def _renamed(weights: Mapping[str, mx.array], names: _Names) -> Iterator[tuple[str, mx.array]]:
    for name, weight in weights.items():
        if name.endswith(_UNUSED):
            continue
        for theirs, ours in names:
            name = name.replace(theirs, ours)
        if weight.ndim == 4:
            one = weight.shape[2:] == (1, 1)  # of a single pixel: it is a matrix
            weight = weight.squeeze((2, 3)) if one else weight.transpose(0, 2, 3, 1)
        yield name, weight
