"""Weights from a Hugging Face hub into the cache directory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..engines.base import LoadFailed

_URI = re.compile(r"hf://([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?\Z")
#: What an engine here reads; nothing that could run as code.
_WANTED = ("*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model", "tiktoken.model")


@dataclass(frozen=True, slots=True)
class Source:
    """`hf://org/name@revision`."""

    repository: str
    revision: str


def parse(uri: str) -> Source:
    """Raises LoadFailed when the uri is not one of ours."""
    match = _URI.match(uri)
    if match is None:
        raise LoadFailed(
            "ModelSourceNotFound", f"{uri!r} is no source: write hf://organisation/name@revision"
        )
    return Source(repository=match[1], revision=match[2] or "main")


def fetch(source: Source, cache: Path, token: str | None) -> Path:
    """The directory with the model; blocks. Raises LoadFailed, with words for the status."""
    # Imported late: only models from a hub pay for it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"{source.repository}@{source.revision}"
    try:
        found = snapshot_download(
            source.repository,
            revision=source.revision,
            cache_dir=cache,
            token=token or False,
            allow_patterns=list(_WANTED),
        )
    except GatedRepoError as error:
        raise _unauthorized(where, token) from error
    except RevisionNotFoundError as error:
        raise LoadFailed("ModelSourceNotFound", f"{where}: no such revision") from error
    except RepositoryNotFoundError as error:
        # A hub says so too for what it hides from this token.
        if _status(error) in (401, 403):
            raise _unauthorized(where, token) from error
        raise LoadFailed("ModelSourceNotFound", f"{where}: no such model") from error
    except LocalEntryNotFoundError as error:
        raise _unreachable(where) from error
    except HfHubHTTPError as error:
        if _status(error) in (401, 403):
            raise _unauthorized(where, token) from error
        raise _unreachable(where) from error
    except OSError as error:
        raise _unreachable(where) from error
    return Path(found)


def _status(error: Exception) -> int | None:
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None)


def _unauthorized(where: str, token: str | None) -> LoadFailed:
    advice = "the token has no right to it" if token else "it needs a token: credentialsSecretRef"
    return LoadFailed("ModelSourceUnauthorized", f"{where}: {advice}")


def _unreachable(where: str) -> LoadFailed:
    return LoadFailed(
        "ModelSourceUnreachable", f"{where}: the hub cannot be reached", permanent=False
    )
