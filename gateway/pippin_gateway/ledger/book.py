"""What keys have used of models, in memory. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..catalog.model import ApiKey


class Took(NamedTuple):
    """What one request took of a model."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    failed: bool = False


@dataclass(slots=True)
class Count:
    """Sums; `last` is Unix seconds."""

    requests: int = 0
    errors: int = 0
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    last: float = 0.0

    @property
    def each(self) -> tuple[int, ...]:
        """In the order of SUMS."""
        return self.requests, self.errors, self.prompt, self.completion, self.cached


#: How a Count's sums are called outside.
SUMS = ("requests", "errors", "prompt_tokens", "completion_tokens", "cached_tokens")


@dataclass(slots=True)
class Account:
    """Of one APIKey, by namespace/name of the model and id of the key that was shown."""

    ref: str
    counts: dict[tuple[str, str], Count] = field(default_factory=dict)


class Entry(NamedTuple):
    """What one key used of one model."""

    uid: str
    ref: str
    model: str
    key_id: str
    sums: Count


class Book:
    """By the APIKey's uid. Names come from the catalog, so there are no more than objects."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}

    def note(self, key: ApiKey, model: str, took: Took, at: float) -> None:
        """One request is over."""
        account = self._accounts.get(key.uid)
        if account is None:
            account = self._accounts[key.uid] = Account(key.ref)
        of = model, key.key_id
        count = account.counts.get(of)
        if count is None:
            count = account.counts[of] = Count()
        count.requests += 1
        count.errors += took.failed
        count.prompt += took.prompt
        count.completion += took.completion
        count.cached += took.cached
        count.last = at

    def entries(self) -> Iterator[Entry]:
        """All that is noted."""
        for uid, account in self._accounts.items():
            for (model, key_id), count in account.counts.items():
                yield Entry(uid, account.ref, model, key_id, count)

    def take(self, most: int) -> list[Entry]:
        """Some of it, which is forgotten here; at least `most` entries, or all there are."""
        taken: list[Entry] = []
        while self._accounts and len(taken) < most:
            uid, account = self._accounts.popitem()
            taken += [
                Entry(uid, account.ref, model, key_id, count)
                for (model, key_id), count in account.counts.items()
            ]
        return taken

    def retain(self, uids: frozenset[str]) -> None:
        """Forget APIKeys that are gone."""
        for uid in self._accounts.keys() - uids:
            del self._accounts[uid]


def told(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Added up as `pippin_contract.usage.KeyUsage` has it, the newest key first."""
    keys: dict[str, dict[str, Any]] = {}
    for uid, ref, model, key_id, count in entries:
        key = keys.setdefault(uid, {"uid": uid, "key": ref, "ids": {}, "models": {}})
        if key_id:
            key["ids"][key_id] = max(count.last, key["ids"].get(key_id, 0.0))
        if not model:
            continue
        used = key["models"].setdefault(model, {"model": model, "last_used_at": 0.0})
        for name, value in zip(SUMS, count.each, strict=True):
            used[name] = used.get(name, 0) + value
        used["last_used_at"] = max(count.last, used["last_used_at"])
    return [key | {"models": list(key["models"].values())} for key in keys.values()]
