"""When each token was said, from what heads of the decoder looked at as they read it: such as
follow the sound look at where it is. Needs no MLX."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .mel import Floats

#: Steps on each side that decide with their neighbour; seven together.
_BESIDE = 3
#: Exchanged in this order, the fourth of seven numbers is the one in the middle (Devillard).
_EXCHANGES = (
    (0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6), (2, 3), (3, 6), (4, 5), (1, 4), (1, 3),
    (3, 4),
)  # fmt: skip
#: Where a way came from: from the token and the step before, or from the step before; 1 is the
#: token before.
_BOTH, _STEP = 0, 2


def attended(scores: Floats) -> Floats:
    """Of logits, heads x tokens x steps: by how much more than other tokens each looks at each
    step, in standard deviations, of all heads together."""
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    spread = shares.std(axis=1, keepdims=True)
    shares -= shares.mean(axis=1, keepdims=True)
    shares /= np.where(spread > 0, spread, 1)
    found = np.zeros(shares.shape[1:], dtype=np.float32)
    for head in shares:
        found += smooth(head)
    return found


def smooth(rows: Floats) -> Floats:
    """Each number becomes the median of the seven around it; the ends are mirrored."""
    length = rows.shape[-1]
    if length <= _BESIDE:
        return rows
    padded = np.pad(rows, ((0, 0), (_BESIDE, _BESIDE)), mode="reflect")
    seven = [padded[:, i : i + length].copy() for i in range(2 * _BESIDE + 1)]
    for low, high in _EXCHANGES:
        smaller = np.minimum(seven[low], seven[high])
        np.maximum(seven[low], seven[high], out=seven[high])
        seven[low] = smaller
    return seven[_BESIDE]


def begins(likely: Floats) -> list[int]:
    """The step at which each token begins: the best way through tokens x steps from the first of
    both to the last, on which neither goes back (dynamic time warping)."""
    tokens, steps = likely.shape
    came = _ways(likely)
    found = [0] * tokens
    token, diagonal = tokens - 1, tokens + steps - 2
    found[token] = diagonal - token
    while diagonal:
        way = int(came[diagonal, token])
        token -= way != _STEP
        diagonal -= 2 if way == _BOTH else 1
        found[token] = diagonal - token
    return found


def _ways(likely: Floats) -> npt.NDArray[np.int8]:
    """Where the best way to each place came from, by diagonal and token: the places of a diagonal
    hang on the two diagonals before alone, and are computed at once."""
    tokens, steps = likely.shape
    token = np.arange(tokens)[:, None]
    costs = np.full((tokens + steps - 1, tokens), np.inf)
    costs[token + np.arange(steps), token] = -likely
    came = np.empty(costs.shape, dtype=np.int8)
    before = np.full(tokens + 1, np.inf)  # of the diagonal before, behind a token that is none
    earlier = before.copy()
    earlier[0] = 0.0
    for diagonal, cost in enumerate(costs):
        ways = np.stack([earlier[:-1], before[:-1], before[1:]])
        came[diagonal] = ways.argmin(axis=0)
        earlier, before = before, np.full(tokens + 1, np.inf)
        before[1:] = cost + ways.min(axis=0)
    return came
