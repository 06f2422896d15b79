"""vLLM's own OpenAI application: its routes and its errors, without what it puts in front of them
(CORS, per-request metrics, cloud vendors' endpoints), which is what our edge is for."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.openai.chat_completion import api_router as chat
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion import api_router as completion
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.pooling.embed import api_router as embed
from vllm.entrypoints.pooling.embed.protocol import EmbeddingChatRequest, EmbeddingCompletionRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.exception_handling.register import init_exception_handler
from vllm.entrypoints.serve.lora.protocol import (
    LoadLoRAAdapterRequest,
    UnloadLoRAAdapterRequest,
)
from vllm.v1.engine.async_llm import AsyncLLM

from pippin_edge.asgi import App


@dataclass(frozen=True, slots=True)
class Application:
    """`fields` that its bodies may hold, by path. `models`: vLLM's list of what it serves."""

    app: App
    fields: dict[str, frozenset[str]]
    models: Any

    async def load_adapter(self, name: str, path: str) -> str | None:
        """What vLLM has against it; None: it is served by this name from now on."""
        request = LoadLoRAAdapterRequest(lora_name=name, lora_path=path)
        told = await self.models.load_lora_adapter(request)
        return str(told.error.message) if isinstance(told, ErrorResponse) else None

    async def unload_adapter(self, name: str) -> None:
        """Answers on their way end by it."""
        await self.models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=name))


async def make(llm: AsyncLLM, arguments: Namespace) -> Application:
    """Ready to be asked."""
    tasks = await llm.get_supported_tasks()
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    fields: dict[str, frozenset[str]] = {}
    if "generate" in tasks:
        app.include_router(chat.router)
        app.include_router(completion.router)
        fields["/v1/chat/completions"] = _names(ChatCompletionRequest)
        fields["/v1/completions"] = _names(CompletionRequest)
    if "embed" in tasks:
        app.include_router(embed.router)
        fields["/v1/embeddings"] = _names(EmbeddingCompletionRequest, EmbeddingChatRequest)
    init_exception_handler(app)
    await init_app_state(llm, app.state, arguments, tasks)
    return Application(app, fields, app.state.openai_serving_models)


def _names(*models: Any) -> frozenset[str]:
    fields = [item for model in models for item in model.model_fields.items()]
    return frozenset(field.alias or name for name, field in fields)
