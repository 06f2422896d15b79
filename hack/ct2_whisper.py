"""A Whisper model of CTranslate2's as the directory of safetensors, configs and tokenizer that
engines load."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: CTranslate2's layout, and the numbers of its types: model_spec.py of its Python package.
_LAYOUT = 6
_DTYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
#: CTranslate2's name -> Hugging Face's: of the whole model, and of each layer. Names of what is
#: fused in one matrix come together.
_TOP = {
    "encoder/conv1": "encoder.conv1",
    "encoder/conv2": "encoder.conv2",
    "encoder/position_encodings": "encoder.embed_positions",
    "encoder/layer_norm": "encoder.layer_norm",
    "decoder/embeddings": "decoder.embed_tokens",
    "decoder/position_encodings": "decoder.embed_positions",
    "decoder/layer_norm": "decoder.layer_norm",
}
_LAYER = {
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "ffn/layer_norm": ("final_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
}
_LEAVES = {"gamma": "weight", "beta": "bias", "encodings": "weight"}
_IN_LAYER = re.compile(r"(encoder|decoder)/layer_(\d+)/(.+)/(\w+)")


@dataclass
class _Reader:
    raw: bytes
    at: int = 0

    def number(self, form: str) -> int:
        (found,) = struct.unpack_from(f"<{form}", self.raw, self.at)
        self.at += struct.calcsize(form)
        return int(found)

    def text(self) -> str:
        """Its length counts a zero at its end."""
        return self.bytes(self.number("H")).rstrip(b"\0").decode()

    def bytes(self, count: int) -> bytes:
        self.at += count
        return self.raw[self.at - count : self.at]


def variables(raw: bytes) -> dict[str, Any]:
    """What a model.bin holds, by name, as numpy's arrays. Raises ValueError."""
    import numpy

    reader = _Reader(raw)
    layout, kind, _ = reader.number("I"), reader.text(), reader.number("I")
    if (layout, kind) != (_LAYOUT, "WhisperSpec"):
        raise ValueError(f"{kind} in layout {layout} is not known here")
    found = {}
    for _ in range(reader.number("I")):
        name = reader.text()
        shape = [reader.number("I") for _ in range(reader.number("B"))]
        dtype = numpy.dtype(_DTYPES[reader.number("B")])
        found[name] = numpy.frombuffer(reader.bytes(reader.number("I")), dtype).reshape(shape)
    return found


def convert(raw: bytes, told: dict[str, Any], tokenizer: bytes, into: Path) -> None:
    """Write the directory. `told`: the config.json beside model.bin."""
    from safetensors.numpy import save_file

    found = variables(raw)
    weights = dict(pair for name, value in found.items() for pair in _renamed(name, value))
    save_file(weights, into / "model.safetensors", metadata={"format": "pt"})
    (into / "model.safetensors").chmod(0o644)
    (into / "tokenizer.json").write_bytes(tokenizer)
    _dump(into / "config.json", _config(found))
    _dump(into / "generation_config.json", _generation(told, tokenizer))


def _renamed(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Under its names of Hugging Face's; knobs of CTranslate2's have none."""
    import numpy

    part, _, leaf = name.rpartition("/")
    leaf = _LEAVES.get(leaf, leaf)
    if part in _TOP:
        yield f"model.{_TOP[part]}.{leaf}", value
    elif match := _IN_LAYER.fullmatch(name):
        targets = _LAYER[match[3]]
        for target, piece in zip(targets, numpy.split(value, len(targets)), strict=True):
            # Keys have no bias: CTranslate2 writes zeros.
            if not (target.endswith("k_proj") and leaf == "bias"):
                whole = f"model.{match[1]}.layers.{match[2]}.{target}.{leaf}"
                yield whole, numpy.ascontiguousarray(piece)


def _config(found: dict[str, Any]) -> dict[str, Any]:
    vocabulary, hidden = found["decoder/embeddings/weight"].shape
    sides = {side: _count(found, side) for side in ("encoder", "decoder")}
    config: dict[str, Any] = {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "activation_function": "gelu",
        "d_model": hidden,
        "vocab_size": vocabulary,
        "num_mel_bins": found["encoder/conv1/weight"].shape[1],
        "max_source_positions": len(found["encoder/position_encodings/encodings"]),
        "max_target_positions": len(found["decoder/position_encodings/encodings"]),
        "torch_dtype": "float16",
    }
    for side, layers in sides.items():
        config[f"{side}_layers"] = layers
        config[f"{side}_attention_heads"] = int(found[f"{side}/num_heads"])
        config[f"{side}_ffn_dim"] = len(found[f"{side}/layer_0/ffn/linear_0/bias"])
    return config


def _count(found: dict[str, Any], side: str) -> int:
    return len(
        {name.split("/")[1] for name in found if name.startswith(f"{side}/layer_")} - {"layer_norm"}
    )


def _generation(told: dict[str, Any], tokenizer: bytes) -> dict[str, Any]:
    ids = {one["content"]: one["id"] for one in json.loads(tokenizer)["added_tokens"]}
    names = {index: name for name, index in ids.items()}
    return {
        "alignment_heads": told["alignment_heads"],
        "suppress_tokens": told["suppress_ids"],
        "begin_suppress_tokens": told["suppress_ids_begin"],
        "lang_to_id": {names[index]: index for index in told["lang_ids"]},
        "is_multilingual": True,
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "max_initial_timestamp_index": 50,
    }


def _dump(path: Path, told: dict[str, Any]) -> None:
    path.write_text(json.dumps(told, indent=2) + "\n")
