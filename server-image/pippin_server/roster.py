"""Under which names there are answers: the model's own, and each of them with each adapter's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pippin_contract import adapters
from pippin_edge.errors import ModelNotFound


@dataclass(frozen=True, slots=True)
class Named:
    """What a request's model means. `adapter` empty: the model alone. `served`: how it is called
    here, whichever of its names was asked for."""

    served: str
    adapter: str = ""


class Roster:
    """`names` of the model, the one that it is called by first."""

    def __init__(self, names: Iterable[str], loaded: Iterable[str] = ()) -> None:
        self._names = tuple(names)
        self._found = {name: Named(self._names[0]) for name in self._names}
        self._adapters: dict[str, None] = {}
        for adapter in loaded:
            self.add(adapter)

    def __contains__(self, adapter: str) -> bool:
        return adapter in self._adapters

    def __len__(self) -> int:
        return len(self._adapters)

    def add(self, adapter: str) -> None:
        named = self.named(adapter)
        self._adapters[adapter] = None
        for name in self._names:
            # A model that is called as if it had an adapter comes first.
            self._found.setdefault(adapters.served_name(name, adapter), named)

    def remove(self, adapter: str) -> None:
        named = self.named(adapter)
        del self._adapters[adapter]
        self._found = {name: found for name, found in self._found.items() if found != named}

    def named(self, adapter: str) -> Named:
        return Named(adapters.served_name(self._names[0], adapter), adapter)

    def find(self, name: str) -> Named:
        """Raises ModelNotFound."""
        found = self._found.get(name)
        if found is None:
            raise ModelNotFound(
                f"the model '{name[:512]}' is not served here: ask /v1/models", param="model"
            )
        return found

    def every(self) -> Iterator[Named]:
        """The model first."""
        yield Named(self._names[0])
        yield from map(self.named, self._adapters)
