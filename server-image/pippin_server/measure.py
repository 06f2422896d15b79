"""Every answer counted and timed, by the path it was asked on."""

from __future__ import annotations

from pippin_edge.access_log import CLIENT_CLOSED
from pippin_edge.asgi import App, Receive, Scope, Send, state
from pippin_edge.clock import Clock

from .figures import Figures
from .telemetry import Answers

#: Paths that are counted by name; all others are one.
_ENDPOINTS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/images/generations": "images",
    "/v1/images/edits": "images",
    "/v1/audio/transcriptions": "transcriptions",
    "/v1/models": "models",
}
#: Those that the model answers.
_ANSWERED = frozenset({"chat", "completions", "embeddings", "images", "transcriptions"})
#: Probes and scrapes would drown what people ask.
_QUIET = frozenset({"/health", "/ready", "/livez", "/metrics"})
#: In the request's state.
_COUNTED = "counted"


class Measure:
    """Outermost but for the request's id: refusals count too. Where there are several models, who
    finds out which one is asked says so with `counts_for`."""

    def __init__(self, app: App, telemetry: Answers, figures: Figures, clock: Clock) -> None:
        self.app = app
        self.telemetry = telemetry
        self.figures = figures
        self.clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _QUIET:
            return await self.app(scope, receive, send)
        began = self.clock.monotonic()
        state(scope)["began"] = began
        try:
            await self.app(scope, receive, send)
        finally:
            status = state(scope)["answer"].status or CLIENT_CLOSED
            endpoint = _ENDPOINTS.get(scope["path"], "other")
            seconds = self.clock.monotonic() - began
            telemetry, figures = state(scope).get(_COUNTED, (self.telemetry, None))
            telemetry.answered(endpoint, status, seconds)
            if endpoint in _ANSWERED:
                self.figures.answered(seconds)
                if figures is not None:
                    figures.answered(seconds)


def counts_for(scope: Scope, telemetry: Answers, figures: Figures) -> None:
    """The request is one of this model's."""
    state(scope)[_COUNTED] = telemetry, figures
