"""What every engine is asked and answers. No engine names, no OpenAI shapes here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from prometheus_client.metrics_core import Metric

from pippin_edge.asgi import Receive, Scope, Send

Finish = Literal["stop", "length", "tool_calls"]


class EngineError(Exception):
    """An answer that an engine could not give. The text is safe to show to a caller."""

    #: Which of the request's prompts it is about, where it has several.
    prompt: int | None = None


class PromptTooLong(EngineError):
    """The prompt and what it asks for do not fit into the context."""

    def __init__(self, *, prompt_tokens: int, wanted: int | None, limit: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.wanted = wanted
        self.limit = limit
        asked = f" and {wanted} more were asked for" if wanted is not None else ""
        super().__init__(
            f"the context of this model is {limit} tokens, the prompt has {prompt_tokens}{asked}: "
            "shorten the prompt or ask for less"
        )


class PromptRefused(EngineError):
    """The prompt is not one that this model can read; `param` names the field at fault."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class InputTooLong(EngineError):
    """One of the texts to embed does not fit into the context; `index`: which."""

    def __init__(self, *, index: int, tokens: int, limit: int) -> None:
        self.index = index
        super().__init__(f"has {tokens} tokens, and this model reads {limit}: split it")


class EngineFailed(EngineError):
    """The engine broke while it worked on this request; another try may succeed."""


class EngineBusy(EngineError):
    """The engine takes no more at the moment."""


class OutOfMemory(EngineFailed):
    """There was no memory for this request."""


class EngineStopped(EngineError):
    """The engine was closed while this request was on its way."""


class LoadFailed(Exception):
    """The model cannot be served. `reason` is one of the status's words, PascalCase."""

    def __init__(self, reason: str, message: str, *, permanent: bool = True) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.permanent = permanent


@dataclass(frozen=True, slots=True)
class Call:
    """A function that a model wants to have called; `arguments` is a JSON object as text.

    `id` is empty where the model gives none: then whoever answers makes one.
    """

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture in a turn: a file as it was sent, what it is (png, jpeg, …), and by its own headers
    which way up it is (Exif's number) and its pixels when it is upright. `coarse`: a rough look is
    enough; `where`: how errors call it."""

    content: bytes
    kind: str
    orientation: int
    width: int
    height: int
    coarse: bool
    where: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat. `answers`: the id of the call that a turn of the role `tool` answers.

    `parts` are words and pictures in their order, where there are pictures; `content` has the words
    alone.
    """

    role: str
    content: str
    reasoning: str | None = None
    calls: tuple[Call, ...] = ()
    answers: str | None = None
    parts: tuple[str | Shown, ...] = ()


@dataclass(frozen=True, slots=True)
class Function:
    """What a model may call; `parameters` is a JSON schema of an object."""

    name: str
    parameters: dict[str, Any]
    description: str | None = None
    #: The arguments must follow the schema, whatever the model is inclined to.
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Tools:
    """What an answer may call, and whether it must. `must`: calls, and nothing else."""

    functions: tuple[Function, ...]
    must: bool = False
    #: The name of the only one that may be called.
    only: str | None = None
    #: More than one call in an answer.
    parallel: bool = True

    @property
    def callable(self) -> tuple[Function, ...]:
        return tuple(one for one in self.functions if self.only in (None, one.name))


@dataclass(frozen=True, slots=True)
class Prompt:
    """Exactly one of the three: a chat, a text to go on with, or its tokens."""

    messages: tuple[Message, ...] | None = None
    text: str | None = None
    tokens: tuple[int, ...] | None = None
    #: What a chat's answer may call.
    tools: Tools | None = None
    #: Name of the adapter that it is answered by; empty: the model alone.
    adapter: str = ""

    @property
    def pictures(self) -> list[Shown]:
        """Of all messages, in their order."""
        turns = self.messages or ()
        return [part for turn in turns for part in turn.parts if isinstance(part, Shown)]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens. A temperature of 0 is greedy; `max_tokens` None: what fits, and 0 only
    with `echo`."""

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    #: Token -> what is added to its logit.
    logit_bias: tuple[tuple[int, float], ...] = ()
    #: How many of the likeliest tokens to tell for each, beside the chosen one; None: nothing.
    logprobs: int | None = None
    #: A JSON schema that the answer must follow, as text.
    schema: str | None = None
    #: The prompt comes back before the answer, as one delta of 0 tokens.
    echo: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """A token by its text and bytes, and the natural logarithm of how likely it was; None: nobody
    can say, since nothing came before it."""

    text: str
    raw: bytes
    logprob: float | None


@dataclass(frozen=True, slots=True)
class Delta:
    """What one step of the engine added to an answer.

    `text` may be empty (half a character, a possible stop sequence); `tokens` counts all the same.
    `scores`, where asked for: of each token of the text, the chosen one first, then the likeliest.
    `reasoning` is what the model says to itself; a call comes once it is whole.
    """

    text: str
    tokens: int = 1
    prompt_tokens: int = 0
    #: Of the prompt's tokens, those that were in the prompt cache.
    cached_tokens: int = 0
    finish: Finish | None = None
    scores: tuple[tuple[Score, ...], ...] = ()
    reasoning: str = ""
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """What an engine knows of its model once it is loaded. `memory`: what was reckoned before;
    `sees`: it reads pictures in chats."""

    context_length: int
    bytes: int = 0
    details: dict[str, str] = field(default_factory=dict)
    memory: dict[str, object] | None = None
    sees: bool = False


@dataclass(frozen=True, slots=True)
class CacheState:
    """A prompt cache of ours, in bytes. `reason`: why it is off; None: it is on. `evicted`: pieces
    that made room for others; `drops`: times that all of it was given up."""

    reason: str | None
    bytes: int
    capacity: int
    evicted: int
    drops: int


@dataclass(frozen=True, slots=True)
class Strain:
    """Whether an engine does less than it could, since memory ran out: `batch` requests at once of
    `full`. `times` that it ran out, and the `freed` bytes of all of them."""

    degraded: bool = False
    batch: int = 0
    full: int = 0
    times: int = 0
    freed: int = 0


@dataclass(frozen=True, slots=True)
class Activity:
    """What an engine is doing. `batch`: requests in the step at hand; the last token was made, or
    the first request came to an idle engine, at `progressed_at` (monotonic). Cache: tokens of
    prompts that were found in the prompt cache, and that were not; `cache` where it is ours.
    """

    active: int
    batch: int
    progressed_at: float
    alive: bool = True
    cache_hits: int = 0
    cache_misses: int = 0
    cache: CacheState | None = None
    strain: Strain | None = None


@dataclass(frozen=True, slots=True)
class Transfer:
    """How much of the weights is here. `total`, `eta_seconds`: None while nobody can say."""

    bytes: int
    total: int | None
    eta_seconds: int | None

    @property
    def percent(self) -> int:
        return min(100, 100 * self.bytes // self.total) if self.total else 0


class Progress(Protocol):
    """Told while a model is fetched and loaded: percent of the step at hand, and what it is."""

    def __call__(self, percent: int, message: str, transfer: Transfer | None = None) -> None: ...


class Meter(Protocol):
    """Told of every step by an engine whose tokens do not pass through `answering`."""

    def step(
        self, *, prompt: int, completion: int, first: Sequence[float], between: Sequence[float]
    ) -> None:
        """Tokens read and made in one step; seconds to first tokens, and between others."""
        ...


class Engine(Protocol):
    """One model behind one owner. All methods are called on the event loop."""

    name: str

    async def load(self, path: Path | None, progress: Progress) -> Loaded:
        """Become able to answer from the weights at `path`. Raises LoadFailed."""
        ...

    async def warm_up(self) -> None:
        """Generate a little, so that the first caller does not pay for it."""
        ...

    def activity(self) -> Activity: ...

    async def close(self) -> None:
        """End; requests on their way raise EngineStopped."""
        ...


class Generator(Engine, Protocol):
    """An engine that makes tokens; what HTTP and OpenAI want of them is made here."""

    #: What it honours of the fields that not every engine does, by their names in requests.
    honours: frozenset[str]

    def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Sequence[Delta], None]:
        """What came since the last look, until a delta with `finish`. Raises EngineError.

        Closing the generator frees what the request holds within one step.
        """
        ...


#: A text, or its tokens.
Input = str | tuple[int, ...]
#: 32-bit floats.
Vector: TypeAlias = "array[float]"  # Python 3.11 cannot say it otherwise


@dataclass(frozen=True, slots=True)
class Embedded:
    """A vector for each input, in their order, and how many tokens the inputs were together."""

    vectors: Sequence[Vector]
    tokens: int


class Embedder(Engine, ABC):
    """An engine that makes vectors of texts."""

    #: Length of its vectors; known once loaded.
    dimensions: int
    #: Told how many inputs each batch has. Set before the first request.
    batched: Callable[[int], object]

    @abstractmethod
    async def embed(self, inputs: Sequence[Input]) -> Embedded:
        """At least one input. Raises EngineError; cancelled, it computes nothing more of them."""


class Host(Engine, ABC):
    """An engine that brings an OpenAI application of its own, which runs behind our edge."""

    #: Set before the first request.
    meter: Meter

    @abstractmethod
    def fields(self, path: str) -> frozenset[str] | None:
        """What a body for this path may hold; None: this model does not do that."""

    @abstractmethod
    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application; asked only once loaded, and only paths that have `fields`."""

    @abstractmethod
    def metrics(self) -> Iterable[Metric]:
        """The engine's own metrics, under names that Prometheus' rules allow."""
