"""What chat and completion requests share: sampling, and how a wrong field is told.

A field is honoured, or refused by its name; it is never silently ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pippin_edge.errors import BadRequest

from ..engines.base import Sampling

#: Stop sequences of one request.
MAX_STOPS = 16
#: Answers to one request; they share its place, and wait for each other's prompts.
MAX_CHOICES = 16
#: Tokens whose logit one request shifts.
MAX_BIASES = 1024
#: Problems named in one answer.
_MAX_PROBLEMS = 3

M = TypeVar("M", bound="Body")
S = TypeVar("S", bound="Strict")
Stop = Annotated[str, Field(min_length=1, max_length=256)]
TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Bias = Annotated[float, Field(ge=-100, le=100)]


class Strict(BaseModel):
    """No guessing: a string is not a number, and an unknown field is a mistake."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class StreamOptions(Strict):
    include_usage: bool = False
    include_obfuscation: bool = False


class Body(Strict):
    """Fields of both kinds of requests."""

    #: Fields that not every engine honours, or none yet -> the values that ask for nothing.
    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {
        "best_of": (1,),
        "logit_bias": ({},),
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
    }
    #: Fields that ask nothing of an answer.
    IGNORED: ClassVar[frozenset[str]] = frozenset({"user", "safety_identifier", "metadata"})

    model: str = Field(min_length=1, max_length=512)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**64 - 1)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[TokenId, Bias] | None = Field(default=None, max_length=MAX_BIASES)
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self) -> Sampling:
        """OpenAI's defaults where nothing is said."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            max_tokens=self.limit(),
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(self.top_k or 0, 0),
            min_p=self.min_p or 0.0,
            seed=self.seed,
            stop=tuple(stop),
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            logit_bias=tuple((int(token), bias) for token, bias in (self.logit_bias or {}).items()),
            logprobs=self.likeliest(),
            schema=self.schema_text(),
        )

    def likeliest(self) -> int | None:
        """How many of the likeliest tokens to tell; None: no log-probabilities at all."""
        return None

    def schema_text(self) -> str | None:
        """The JSON schema that the answer must follow."""
        return None

    def limit(self) -> int | None:
        return self.max_tokens


def read(kind: type[M], body: dict[str, Any], honours: frozenset[str] = frozenset()) -> M:
    """`honours`: what the engine does of the fields in NEUTRAL. Raises BadRequest naming the
    field."""
    wanted = {name: value for name, value in body.items() if name not in kind.IGNORED}
    not_ours = {name: values for name, values in kind.NEUTRAL.items() if name not in honours}
    refuse_unsupported(wanted, not_ours)
    found = validated(kind, wanted)
    if found.stream_options is not None and not found.stream:
        raise BadRequest("'stream_options' needs 'stream': true", param="stream_options")
    return found


def refuse_unsupported(wanted: dict[str, Any], neutral: dict[str, tuple[Any, ...]]) -> None:
    """Take out what asks for nothing. Raises BadRequest for what asks for something."""
    for name, values in neutral.items():
        if name in wanted and not _asks_nothing(wanted.pop(name), values):
            raise BadRequest(
                f"'{name}' is not supported by this server yet: leave it out",
                param=name,
                code="unsupported_parameter",
            )


def validated(kind: type[S], body: dict[str, Any]) -> S:
    """Raises BadRequest naming the field."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise _bad_request(error) from error


def _asks_nothing(value: object, neutral: tuple[Any, ...]) -> bool:
    # True equals 1 in Python, and not on the wire.
    return (
        value is None
        or any(value == n and type(value) is not bool for n in neutral)
        or any(value is n for n in neutral)
    )


def _bad_request(error: ValidationError) -> BadRequest:
    problems = error.errors(include_url=False, include_context=False)
    params = [_path(problem["loc"]) for problem in problems]
    lines = [
        f"'{param}': {_words(problem)}" for param, problem in zip(params, problems, strict=True)
    ]
    message = "; ".join(dict.fromkeys(lines[:_MAX_PROBLEMS]))
    unknown = problems[0]["type"] == "extra_forbidden"
    return BadRequest(
        message, param=params[0], code="unknown_parameter" if unknown else "invalid_value"
    )


def _path(location: tuple[int | str, ...]) -> str:
    """`messages.0.content`; the names that pydantic adds for unions are no part of it."""
    parts = [str(part) for part in location if not _is_union_tag(part)]
    return ".".join(parts)


def _is_union_tag(part: int | str) -> bool:
    return isinstance(part, str) and any(c in part for c in "[(-") or part in _TAGS


_TAGS = frozenset({"str", "constrained-str", "NamedTool"})


def _words(problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        return "unknown parameter: leave it out"
    if problem["type"] == "missing":
        return "must be given"
    text: str = problem["msg"].removeprefix("Value error, ")
    return text.replace("Input should be", "must be").replace("String should", "must")
