"""Requests for a model and for its adapters in one batch: each row has its lane.

The weights of all adapters lie side by side in each module that any of them changes; lane 0 is the
model's own and holds zeros. A step says which lanes its rows are in, the modules look there. The
numbers of adapters are never given twice, so that nothing that was kept by one (keys and values)
can be taken for another's. Lives on the owning thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ..adapters import Described
from .loading import arrays, as_load_failures
from .lora import Part, mismatch, parts, placed, shape

#: The number of no adapter.
PLAIN = 0


class _Chosen:
    """`lanes` of the rows in the step at hand; None: all are the model's own."""

    lanes: mx.array | None = None


class Laned(nn.Module):  # type: ignore[misc]
    """A linear module with what adapters add to it."""

    def __init__(self, plain: Any, chosen: _Chosen) -> None:
        super().__init__()
        self.plain = plain
        self._chosen = chosen
        # Not parameters of the model: their names begin so.
        self._a = mx.zeros((1, shape(plain)[0], 1))
        self._b = mx.zeros((1, 1, shape(plain)[1]))

    def __call__(self, x: mx.array) -> mx.array:
        answer: mx.array = self.plain(x)
        lanes = self._chosen.lanes
        if lanes is None:
            return answer
        if x.ndim != 3 or x.shape[0] != lanes.size:
            raise ValueError("a module does not read its input row by row")
        low = mx.gather_mm(x.astype(self._a.dtype), self._a, rhs_indices=lanes)
        added = mx.gather_mm(low, self._b, rhs_indices=lanes)
        return answer + added.astype(answer.dtype)

    def arrange(self, lanes: Sequence[Part | None], dtype: mx.Dtype) -> list[Part | None]:
        """Other weights, from lane 1 on; None: nothing is added there. The same as they lie here
        now, so that nobody holds them twice."""
        rank = max((part.rank for part in lanes if part is not None), default=1)
        width, out = shape(self.plain)
        a = [_padded(part.a if part else None, width, rank) for part in (None, *lanes)]
        b = [_padded(part.b if part else None, rank, out) for part in (None, *lanes)]
        self._a, self._b = mx.stack(a).astype(dtype), mx.stack(b).astype(dtype)
        found = [part and self._lying(lane, part.rank) for lane, part in enumerate(lanes, start=1)]
        mx.eval(self._a, self._b, [(part.a, part.b) for part in found if part is not None])
        return found

    def _lying(self, lane: int, rank: int) -> Part:
        return Part(self._a[lane, :, :rank], self._b[lane, :rank])


def _padded(matrix: mx.array | None, rows: int, columns: int) -> mx.array:
    """Zeros up to the widest rank add nothing."""
    if matrix is None:
        return mx.zeros((rows, columns))
    return mx.pad(matrix, [(0, rows - matrix.shape[0]), (0, columns - matrix.shape[1])])


class Lanes:
    """The adapters of one model."""

    def __init__(self, model: Any, dtype: mx.Dtype | None = None) -> None:
        """`dtype`: in which adapters are computed; None: on a CPU the one type that it has for it,
        on a GPU the model's."""
        self._model = model
        self._dtype = dtype or _usual(model)
        self._chosen = _Chosen()
        self._laned: dict[str, Laned] = {}
        #: Of each lane but 0, the adapter in it.
        self._numbers: list[int] = []
        self._parts: dict[int, dict[str, Part]] = {}
        self._leaving: set[int] = set()
        self._made = PLAIN

    def __contains__(self, number: int) -> bool:
        return number == PLAIN or (number in self._parts and number not in self._leaving)

    def add(self, told: Described) -> int:
        """The number of the new one. Raises LoadFailed, and then all is as before."""
        found = placed(self._model, parts(told))
        self._made += 1
        self._parts[self._made] = found
        try:
            with as_load_failures():
                self._arrange()
                self._try(self._made)
        except BaseException:
            del self._parts[self._made]
            self._arrange()
            raise
        return self._made

    def drop(self, number: int, used: Set[int]) -> None:
        """Nobody may begin with it; it goes when nobody uses it."""
        self._leaving.add(number)
        self.tidy(lambda: used)

    def tidy(self, used: Callable[[], Set[int]]) -> None:
        """Give the memory of those back that nobody asks for and nobody uses."""
        over = self._leaving - used() if self._leaving else set()
        if not over:
            return
        self._leaving -= over
        for number in over:
            self._parts.pop(number, None)
        self._arrange()

    def use(self, numbers: Sequence[int]) -> None:
        """Whose the rows are of the next that the model is asked."""
        if not any(numbers):
            self._chosen.lanes = None
            return
        lanes = {number: lane for lane, number in enumerate(self._numbers, start=1)}
        lanes[PLAIN] = 0
        self._chosen.lanes = mx.array([lanes[number] for number in numbers], dtype=mx.uint32)

    def _arrange(self) -> None:
        self._numbers = sorted(self._parts)
        self._lay({name for part in self._parts.values() for name in part} - self._laned.keys())
        for name, module in self._laned.items():
            rest = [self._parts[number].get(name) for number in self._numbers]
            for number, part in zip(self._numbers, module.arrange(rest, self._dtype), strict=True):
                if part is not None:
                    self._parts[number][name] = part

    def _lay(self, names: Set[str]) -> None:
        if not names:
            return
        modules: Mapping[str, Any] = dict(self._model.named_modules())
        new = {name: Laned(modules[name], self._chosen) for name in names}
        self._laned.update(new)
        self._model.update_modules(tree_unflatten(list(new.items())))

    def _try(self, number: int) -> None:
        """On two rows of three tokens, so that what would fail fails now."""
        self.use([number, PLAIN])
        try:
            logits = self._model(mx.array([[0, 0, 0], [0, 0, 0]]))
            mx.eval(logits)
        except ValueError as error:
            raise mismatch(str(error)) from error
        finally:
            self.use([])
        if not mx.isfinite(logits[0]).all().item():
            raise mismatch("with it the model answers with what is no number")


def _usual(model: Any) -> mx.Dtype:
    if mx.default_device() == mx.Device(mx.cpu):
        return mx.float32
    floats = (mx.float32, mx.float16, mx.bfloat16)
    kinds = [array.dtype for array in arrays(model) if array.dtype in floats]
    return max(set(kinds), key=kinds.count, default=mx.float32)
