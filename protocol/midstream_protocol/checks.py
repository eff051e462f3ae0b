"""What a command's payload must satisfy: its struct, and what a struct's types cannot say."""

import base64
import binascii
import re
from typing import Any, Final

import msgspec

from midstream_protocol.commands import (
    ApprovalRespond,
    ClientTool,
    CommandPayload,
    FileBlock,
    ImageBlock,
    InputRespond,
    RunAttach,
    RunCorrect,
    RunStart,
    TextBlock,
    ToolResult,
    ToolsOffer,
)
from midstream_protocol.errors import Malformed, TooLarge
from midstream_protocol.limits import MAX_VALUE_DEPTH

_MEDIA_TYPE: Final = re.compile(r"[A-Za-z0-9.+_-]{1,64}/[A-Za-z0-9.+_-]{1,64}")
_MAX_ERROR_CHARS: Final = 500


def payload_of(
    kind: type[CommandPayload], fields: dict[str, Any], *, max_input_bytes: int, max_tool_result_bytes: int
) -> CommandPayload:
    """The payload struct of `fields`. Raises `Malformed` or `TooLarge`, naming the JSON path and what to do."""
    try:
        payload = msgspec.convert(_normal(kind, fields), kind)
    except msgspec.ValidationError as refused:
        raise Malformed(_explained(str(refused))) from None
    match payload:
        case RunStart():
            _check_input(payload, max_input_bytes)
            _check_tools(payload.client_tools)
        case RunAttach() | ToolsOffer():
            _check_tools(payload.client_tools)
        case RunCorrect():
            _check_size("text", payload.text, max_input_bytes)
        case ApprovalRespond():
            _check_depth("args", payload.args)
        case InputRespond():
            _check_depth("answer", payload.answer)
            _check_size("answer", payload.answer, max_input_bytes)
        case ToolResult():
            _check_result(payload, max_tool_result_bytes)
        case _:
            pass
    return payload


def _normal(kind: type[CommandPayload], fields: dict[str, Any]) -> dict[str, Any]:
    """`fields` with null for an optional field left out, and a client tool given by its bare name as an object."""
    if None in fields.values():
        required = {field.name for field in msgspec.structs.fields(kind) if field.required}
        fields = {name: value for name, value in fields.items() if value is not None or name in required}
    tools = fields.get("client_tools")
    if type(tools) is list and any(type(tool) is str for tool in tools):
        fields = {**fields, "client_tools": [{"name": tool} if type(tool) is str else tool for tool in tools]}
    return fields


def _explained(refusal: str) -> str:
    text, _, path = refusal.rpartition(" - at `$")
    where = f"$.payload{path.rstrip('`')}" if text else "$.payload"
    text = text or refusal
    if "matching regex" in text:
        text = "Expected an id of 1 to 64 letters, digits, `_` or `-`"
    return f"{where}: {text[:_MAX_ERROR_CHARS]}; correct the field and send the command again"


def _check_input(start: RunStart, max_bytes: int) -> None:
    if start.input is None and start.resume is not None:
        return
    if not start.input:
        raise Malformed("$.payload.input: empty; send what the agent should do")
    if isinstance(start.input, str):
        _check_size("input", start.input, max_bytes)
        return
    _check_size("input", "".join(block.text for block in start.input if isinstance(block, TextBlock)), max_bytes)
    for index, block in enumerate(start.input):
        if not isinstance(block, TextBlock):
            _check_block(f"$.payload.input[{index}]", block)


def _check_block(path: str, block: ImageBlock | FileBlock) -> None:
    if _MEDIA_TYPE.fullmatch(block.media_type) is None:
        raise Malformed(f"{path}.media_type: not a media type; send one such as image/png")
    if (block.data is None) == (block.url is None):
        raise Malformed(f"{path}: send exactly one of data and url")
    if block.data is not None:
        try:
            base64.b64decode(block.data, validate=True)
        except (binascii.Error, ValueError):
            raise Malformed(f"{path}.data: not valid base64; send standard base64 with padding") from None
    elif not block.url:
        raise Malformed(f"{path}.url: empty; send the address or the data")


def _check_tools(tools: list[ClientTool] | None) -> None:
    names = [tool.name for tool in tools or ()]
    if len(set(names)) != len(names):
        raise Malformed("$.payload.client_tools: two tools have the same name; send each once")


def _check_result(result: ToolResult, max_bytes: int) -> None:
    if result.ok is None:
        if result.progress is None:
            raise Malformed("$.payload.ok: send ok with the result or the error, or progress alone")
        if result.result is not None or result.error is not None:
            raise Malformed("$.payload.ok: a result or an error needs ok; send ok: true or ok: false")
    elif result.ok and result.error is not None:
        raise Malformed("$.payload.error: ok is true; send a result, or ok: false")
    elif not result.ok and result.error is None:
        raise Malformed("$.payload.error: ok is false; send the error's code and text")
    elif not result.ok and result.result is not None:
        raise Malformed("$.payload.result: ok is false; send the error alone")
    _check_size("result", result.result, max_bytes)


def _check_size(name: str, value: Any, max_bytes: int) -> None:
    size = len(value.encode()) if isinstance(value, str) else len(msgspec.json.encode(value))
    if size > max_bytes:
        raise TooLarge(f"$.payload.{name}: {size} bytes; at most {max_bytes} are taken, send less")


def _check_depth(name: str, value: Any) -> None:
    if _deeper_than(value, MAX_VALUE_DEPTH):
        raise Malformed(f"$.payload.{name}: nested deeper than {MAX_VALUE_DEPTH} levels; send a flatter value")


def _deeper_than(value: Any, room: int) -> bool:
    if type(value) is dict:
        return room == 0 or any(_deeper_than(item, room - 1) for item in value.values())
    if type(value) is list:
        return room == 0 or any(_deeper_than(item, room - 1) for item in value)
    return False
