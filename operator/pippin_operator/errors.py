"""What can go wrong, by what the caller must do. `handlers/outcome.py` turns it into a next try."""

from __future__ import annotations


class OperatorError(Exception):
    """Root of everything that the operator raises itself."""


class InvalidSpec(OperatorError):
    """The object cannot be understood: no retry until its spec changes."""


class NotYet(OperatorError):
    """Something must happen first: again in `after` seconds."""

    def __init__(self, why: str, after: float) -> None:
        super().__init__(why)
        self.after = after


class ApiError(OperatorError):
    """The API server refused or could not be reached. `status` is 0 when it was not reached."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NotFound(ApiError):
    """The object, its kind or its namespace is not there."""


class Conflict(ApiError):
    """Somebody else was first: read again, then decide again."""


class Refused(ApiError):
    """What we sent is not valid, by what the user wrote: no retry until the spec changes."""
