"""Requests as JSON schemas: from the types that judge them, so that both say the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from .chat import ChatRequest
from .common import Body
from .completions import CompletionRequest
from .embeddings import EmbeddingRequest
from .forms import FormBody
from .images import EditRequest, GenerationRequest
from .models import ModelRequest
from .transcripts import TranscriptionRequest

REFERENCE = "#/components/schemas/"
_FILE = {"type": "string", "contentMediaType": "application/octet-stream"}
#: Files of which there may be several, and those that may be missing.
_SEVERAL, _OPTIONAL = frozenset({"image"}), frozenset({"mask"})

REQUESTS: Mapping[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/embeddings": EmbeddingRequest,
    "/v1/images/generations": GenerationRequest,
    "/v1/images/edits": EditRequest,
    "/v1/audio/transcriptions": TranscriptionRequest,
    "/models/load": ModelRequest,
    "/models/unload": ModelRequest,
}


def request(path: str, honours: frozenset[str], schemas: dict[str, Any]) -> dict[str, Any]:
    """A path's `requestBody`; what it refers to goes into `schemas`. `honours`: as of `read`."""
    kind = REQUESTS[path]
    schema = kind.model_json_schema(ref_template=REFERENCE + "{model}")
    if "image_url" not in honours:
        _without_pictures(schema.get("$defs", {}))
    schemas |= schema.pop("$defs", {})
    fields, needed = schema["properties"], schema.get("required", [])
    neutral: Mapping[str, tuple[Any, ...]] = getattr(kind, "NEUTRAL", {})
    for name, values in neutral.items():
        if name not in honours:
            fields[name] = {"enum": [*values, None], "description": "Has no effect yet."}
    for name in getattr(kind, "IGNORED", ()):
        fields[name] = {"description": "Has no effect."}
    media = "application/json"
    if issubclass(kind, FormBody):
        media = "multipart/form-data"
        _as_form(kind, fields, needed)
    schema["required"] = needed
    schemas[kind.__name__] = schema
    content = {media: {"schema": {"$ref": REFERENCE + kind.__name__}}}
    return {"required": True, "content": content}


def _without_pictures(schemas: dict[str, Any]) -> None:
    """Of a model that reads none."""
    part = REFERENCE + "ImagePart"
    for name in ("ImagePart", "ImageURL"):
        schemas.pop(name, None)
    if (message := schemas.get("ChatMessage")) is not None:
        (content, _) = message["properties"]["content"]["anyOf"]
        kinds = content["oneOf"][1]["items"]["oneOf"]
        kinds[:] = [kind for kind in kinds if kind["$ref"] != part]


def _as_form(kind: type[FormBody], fields: dict[str, Any], needed: list[str]) -> None:
    for name, schema in list(fields.items()):
        fields[name] = _without_null(schema)
        if fields[name].get("enum") == []:
            del fields[name]
    for name in kind.LISTS & fields.keys():
        fields[f"{name}[]"] = fields.pop(name)
    for name in kind.FILES:
        fields[name] = _FILE
        if name in _SEVERAL:
            fields[f"{name}[]"] = {"type": "array", "items": _FILE}
        elif name not in _OPTIONAL:
            needed.append(name)


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A form has no word for nothing: the field is not there."""
    if "enum" in schema:
        return schema | {"enum": [value for value in schema["enum"] if value is not None]}
    some = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    return rest | some[0] if len(some) == 1 else schema


def of_engine(fields: frozenset[str]) -> dict[str, Any]:
    """The `requestBody` of an engine that judges by itself: the names that it knows."""
    schema = {
        "type": "object",
        "required": ["model"],
        "properties": {name: {} for name in sorted(fields | Body.IGNORED)},
        "additionalProperties": False,
    }
    return {"required": True, "content": {"application/json": {"schema": schema}}}
