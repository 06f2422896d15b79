"""What goes wrong between gateway and replica, as one exception with one kind."""

from __future__ import annotations

from ..routing.retry import Failure


class UpstreamFailure(Exception):
    """The text is for the log; the client is told by kind."""

    def __init__(self, kind: Failure, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else str(kind))
        self.kind = kind
