"""Every answer counted and timed, by the path it was asked on."""

from __future__ import annotations

from pippin_edge.access_log import CLIENT_CLOSED
from pippin_edge.asgi import App, Receive, Scope, Send, state
from pippin_edge.clock import Clock

from .figures import Figures
from .telemetry import Telemetry

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


class Measure:
    """Outermost but for the request's id: refusals count too."""

    def __init__(self, app: App, telemetry: Telemetry, figures: Figures, clock: Clock) -> None:
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
            self.telemetry.answered(endpoint, status, seconds)
            if endpoint in _ANSWERED:
                self.figures.answered(seconds)
