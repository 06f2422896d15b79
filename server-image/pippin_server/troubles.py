"""What a client is told when its engine fails."""

from __future__ import annotations

from collections.abc import Sequence

from pippin_edge import errors
from pippin_edge.errors import ApiError

from .engines.base import (
    EngineBusy,
    EngineError,
    EngineFailed,
    EngineStopped,
    OutOfMemory,
    Prompt,
    PromptRefused,
    PromptTooLong,
)

#: Seconds after which it is worth asking again.
RETRY = 2


def as_api_error(error: EngineError, prompts: Sequence[Prompt]) -> ApiError:
    """The one table from an engine's words to a status."""
    text = str(error)
    match error:
        case PromptTooLong():
            param = "messages" if prompts[0].messages is not None else "prompt"
            if error.prompt is not None:
                text = f"prompt {error.prompt}: {text}"
            return errors.BadRequest(text, param=param, code="context_length_exceeded")
        case PromptRefused():
            return errors.BadRequest(text, param=error.param)
        case OutOfMemory():
            return errors.Overloaded(text, code="out_of_memory", retry_after=RETRY)
        case EngineBusy():
            return errors.Overloaded(text, retry_after=RETRY)
        case EngineStopped():
            return errors.NotReady(text, retry_after=RETRY)
        case EngineFailed():
            return errors.Internal(text, code="engine_failed")
    return errors.Internal("the engine failed on this request", code="engine_failed")
