"""`/v1/models`: what a key may use, as OpenAI shows models, with our own fields beside."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from pippin_edge.asgi import Headers, Receive, Scope, Send

from .catalog.model import Catalog, Model
from .routing.resolve import resolve, visible

PATH = "/v1/models"


async def answer_json(send: Send, content: object, status: int = 200) -> None:
    """A whole JSON answer."""
    await answer(send, orjson.dumps(content, option=orjson.OPT_UTC_Z), b"application/json", status)


async def answer(
    send: Send, body: bytes, kind: bytes, status: int = 200, headers: Headers | None = None
) -> None:
    """A whole answer."""
    head = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *(headers or ())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


class Listing:
    """GET of the list and of one model."""

    def __init__(self, catalog: Callable[[], Catalog]) -> None:
        self._catalog = catalog

    async def every(self, scope: Scope, receive: Receive, send: Send) -> None:
        models = visible(self._catalog(), scope["state"]["principal"])
        data = [shown(name, model) for name, model in models]
        await answer_json(send, {"object": "list", "data": data})

    async def one(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`/v1/models/{id}`; raises ModelNotFound, also for a model the key may not use."""
        name = scope["path"][len(PATH) + 1 :]
        model = resolve(self._catalog(), scope["state"]["principal"], name)
        away = "/" in name
        await answer_json(send, shown(name if away else model.spec.served_name, model))


def shown(name: str, model: Model) -> dict[str, object]:
    """One model, by the name to ask for. `ready` says whether a replica takes requests now."""
    spec = model.spec
    return {
        "id": name,
        "object": "model",
        "created": spec.created,
        "owned_by": spec.namespace,
        "root": spec.adapter or name,
        "parent": name.removesuffix(f":{spec.adapter}") if spec.adapter else None,
        "aliases": spec.aliases,
        "task": spec.task,
        "family": spec.family or None,
        "tags": spec.tags,
        "context_length": spec.context_length,
        "description": spec.description or None,
        "tier": "3A",
        "ready": bool(model.replicas),
    }
