"""What an answer may call: `tools`, `tool_choice` and `parallel_tool_calls`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pippin_edge.errors import BadRequest

from ..engines.base import Function, Tools
from .common import Strict

#: Tools of one request.
MAX_TOOLS = 128

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class FunctionDefinition(Strict):
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def plain(self, where: str) -> Function:
        """Without parameters it is called with nothing. Raises BadRequest."""
        parameters = self.parameters or {"properties": {}, "additionalProperties": False}
        if parameters.get("type", "object") != "object":
            param = f"{where}.function.parameters"
            raise BadRequest(f"'{param}': must have the type object", param=param)
        return Function(
            name=self.name,
            description=self.description,
            parameters={"type": "object", **parameters},
            strict=bool(self.strict),
        )


class Tool(Strict):
    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(Strict):
    name: Name


class NamedTool(Strict):
    type: Literal["function"]
    function: FunctionName


Choice = Literal["none", "auto", "required"] | NamedTool


def offered(tools: list[Tool] | None, choice: Choice | None, parallel: bool | None) -> Tools | None:
    """None: nothing may be called. Raises BadRequest for what does not fit together."""
    only = choice.function.name if isinstance(choice, NamedTool) else None
    must = choice == "required" or only is not None
    if must and not tools:
        raise BadRequest("'tool_choice' needs 'tools'", param="tool_choice")
    functions = [tool.function.plain(f"tools.{n}") for n, tool in enumerate(tools or [])]
    names = [function.name for function in functions]
    if len(set(names)) < len(names):
        raise BadRequest("two 'tools' have one name: name each its own", param="tools")
    if only is not None and only not in names:
        raise BadRequest(f"'tool_choice': no tool is named '{only}'", param="tool_choice")
    if choice == "none" or not functions:
        return None
    # A function that is called for by its name is called once.
    return Tools(tuple(functions), must, only, parallel is not False and only is None)
