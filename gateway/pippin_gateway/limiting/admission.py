"""Takes what a request needs of its limits before it is sent, and settles when it is over."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pippin_edge.asgi import Headers
from pippin_edge.clock import Clock
from pippin_edge.errors import RateLimited
from pippin_edge.limits.claims import TOKENS, Claim, Kind, Verdict

from ..catalog.model import UNLIMITED, ApiKey, Model
from .estimate import Estimator
from .shared import Receipt, Store

_SAID = {
    Kind.RPM: "{who} may make {limit} requests a minute: try again in {wait} s",
    Kind.TPM: "{who} may use {limit} tokens a minute, and this request may take {cost}: "
    "try again in {wait} s",
    Kind.TOKENS_PER_DAY: "{who} may use {limit} tokens a day (UTC), and this request may take "
    "{cost}: try again in {wait} s",
    Kind.CONCURRENCY: "{who} may have {limit} requests under way: try again when one has ended",
}


class Grant:
    """What a request was given. `headers` go with its answer, whatever that is; `tokens` is a
    guess at what it will take."""

    __slots__ = ("_receipts", "_store", "headers", "tokens")

    def __init__(
        self, store: Store, receipt: Receipt | None, headers: Headers, tokens: int
    ) -> None:
        self._store = store
        self._receipts = [] if receipt is None else [receipt]
        self.headers = headers
        self.tokens = tokens

    def settle(self, tokens: Mapping[str, int]) -> None:
        """The request is over and took so many tokens of each owner's. Counts the first time."""
        while self._receipts:
            self._store.settle(self._receipts.pop(), tokens)


class Admission:
    """For every request that goes to a model."""

    def __init__(
        self,
        store: Store,
        estimator: Estimator,
        clock: Clock,
        on_refused: Callable[[str, Kind], object],
    ) -> None:
        self._store = store
        self._estimator = estimator
        self._clock = clock
        self._on_refused = on_refused

    async def admit(
        self,
        key: ApiKey | None,
        model: Model,
        asked: dict[str, Any],
        body: bytes,
        tell: Callable[[Sequence[Claim], Sequence[Verdict]], object],
    ) -> Grant:
        """Key and model together, or, without a key, the model alone. `tell` hears what is said.

        Raises errors.RateLimited, and errors.NotReady when limits cannot be counted.
        """
        of_key, of_model = UNLIMITED if key is None else key.limits, model.spec.limits
        mine, claims = of_key.claims, of_key.claims + of_model.claims
        tokens, counted = 1, of_key.counts_tokens or of_model.counts_tokens
        if counted or len(model.replicas) != 1:  # several have to be compared
            tokens = self._estimator.tokens(model.ref, asked, body)
        if counted:
            claims = _with_tokens(claims, tokens)
        if not claims:
            return Grant(self._store, None, [], tokens)
        verdicts, receipt = await self._store.take(claims)
        tell(claims, verdicts)
        # A model's limits are its callers' together: how much is left of them is nobody's business.
        headers = rate_headers(zip(mine, verdicts, strict=False), self._clock.wall())
        if receipt is None:
            raise self._refused(claims, verdicts, headers)
        return Grant(self._store, receipt, headers, tokens)

    def prompt_tokens(self, model: Model, body: bytes) -> int:
        """A guess, for an answer that did not say."""
        return self._estimator.prompt(model.ref, body)

    def learn(
        self, model: Model, asked: dict[str, Any], body: bytes, used: tuple[int, int]
    ) -> None:
        """Prompt and completion tokens of an answer."""
        self._estimator.learn(model.ref, asked, body, *used)

    def _refused(
        self, claims: Sequence[Claim], verdicts: Sequence[Verdict], headers: Headers
    ) -> RateLimited:
        """By the limit that lasts longest."""
        told = zip(claims, verdicts, strict=True)
        claim, verdict = max(told, key=lambda pair: pair[1].wait)
        self._on_refused(claim.owner.partition("/")[2], claim.kind)
        whose = (
            "this key" if claim.owner.startswith("key/") else "all callers of this model together"
        )
        said = _SAID[claim.kind].format(
            who=whose, limit=claim.limit, cost=claim.cost, wait=math.ceil(verdict.wait)
        )
        return RateLimited(said, retry_after=verdict.wait, extra_headers=headers)


def _with_tokens(claims: Sequence[Claim], tokens: int) -> tuple[Claim, ...]:
    return tuple(
        # Who asks for more than there ever is gets all there is, once.
        Claim(kind, owner, limit, min(tokens, limit) if kind in TOKENS else cost)
        for kind, owner, limit, cost in claims
    )


def rate_headers(told: Iterable[tuple[Claim, Verdict]], wall: float) -> Headers:
    """OpenAI's names (reset as a duration), and the common ones for requests (Unix time)."""
    headers: Headers = []
    for claim, (limited, left, reset_after, _) in told:
        limit, remaining, reset = b"%d" % limited, b"%d" % left, b"%.3fs" % reset_after
        if claim.kind is Kind.RPM:
            headers += (
                (b"x-ratelimit-limit-requests", limit),
                (b"x-ratelimit-remaining-requests", remaining),
                (b"x-ratelimit-reset-requests", reset),
                (b"x-ratelimit-limit", limit),
                (b"x-ratelimit-remaining", remaining),
                (b"x-ratelimit-reset", b"%d" % math.ceil(wall + reset_after)),
            )
        elif claim.kind is Kind.TPM:
            headers += (
                (b"x-ratelimit-limit-tokens", limit),
                (b"x-ratelimit-remaining-tokens", remaining),
                (b"x-ratelimit-reset-tokens", reset),
            )
    return headers
