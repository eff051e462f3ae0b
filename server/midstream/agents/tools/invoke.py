"""Calling a tool's function: typed arguments, the context and the app's resources, in a task or in a thread."""

from collections.abc import Mapping
from inspect import isawaitable
from typing import Any

from midstream.agents.tools.context import ToolContext
from midstream.agents.tools.definition import Tool
from midstream.agents.tools.validate import to_arguments
from midstream.threads import in_thread


async def invoke(tool: Tool, args: dict[str, Any], *, context: ToolContext, resources: Mapping[type, Any]) -> Any:
    """What the function returns or raises. `args` are valid."""
    typed = to_arguments(tool.arguments, args)
    given: dict[str, Any] = {name: getattr(typed, name) for name in typed.__struct_fields__}
    given |= dict.fromkeys(tool.context, context)
    given |= {name: resources[kind] for name, kind in tool.injected.items()}
    if tool.threaded:
        value = await in_thread(lambda: tool.fn(**given), name=f"tool:{context.tool_call_id}")
        # A plain function that returns a coroutine (a partial, a wrapper) means to be awaited.
        return await value if isawaitable(value) else value
    return await tool.fn(**given)
