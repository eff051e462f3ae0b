"""A request in our words → the body of the Messages API. Pure; only the fields every compatible server knows.

What the API would refuse is mended here, because one refused message would poison its conversation for good:
blank texts, unsigned thinking, tool names and ids outside the API's alphabet, a failed result without text.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any, Final

from midstream.agents.conversation import (
    Call,
    Media,
    Message,
    Opaque,
    Reasoning,
    Result,
    Text,
    UserMessage,
)
from midstream.agents.providers.contract import BadModelRequest, ModelRequest

# The alphabet of tool_use ids, and of tool names with their longest length.
_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")
_NOT_IN_NAME: Final = re.compile(r"[^a-zA-Z0-9_-]")
TOOL_NAME_CHARS: Final = 128

# The form in which the API's documentation wants a tool input that was no JSON handed back.
INVALID_JSON: Final = "INVALID_JSON"


def request_body(request: ModelRequest, *, model: str) -> dict[str, Any]:
    """The JSON body. Raises `BadModelRequest` for a file of a kind that the API cannot take."""
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": request.max_tokens,
        "messages": wire_messages(request.messages),
        "stream": True,
    }
    if request.system.strip():
        body["system"] = request.system
    if request.tools:
        body["tools"] = [
            {"name": tool.name, "description": tool.description, "input_schema": tool.input_schema}
            for tool in request.tools
        ]
    if request.must_call is not None and any(tool.name == request.must_call for tool in request.tools):
        body["tool_choice"] = {"type": "tool", "name": request.must_call}
    return body


def wire_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for message in messages:
        if isinstance(message, UserMessage):
            role, blocks = "user", [block for part in message.parts for block in _user_block(part)]
        else:
            role, blocks = "assistant", [block for part in message.parts for block in _assistant_block(part)]
        if not blocks:
            continue
        # A dropped message can leave two of one role side by side, which stricter servers refuse.
        if out and out[-1]["role"] == role:
            out[-1]["content"] = [*out[-1]["content"], *blocks]
        else:
            out.append({"role": role, "content": blocks})
    _trim_end(out)
    return out


def _trim_end(out: list[dict[str, Any]]) -> None:
    """The API refuses a last assistant text that ends in white space."""
    if out and out[-1]["role"] == "assistant" and out[-1]["content"][-1].get("type") == "text":
        last = out[-1]["content"][-1]
        out[-1]["content"][-1] = {**last, "text": last["text"].rstrip()}


def _user_block(part: Text | Media | Result) -> list[dict[str, Any]]:
    match part:
        case Text(text=text):
            return _text_block(text)
        case Media():
            return [_media_block(part)]
        case Result():
            block: dict[str, Any] = {
                "type": "tool_result",
                "tool_use_id": _wire_id(part.provider_id, part.call_id),
                "content": part.content or ("(no output)" if part.failed else ""),
            }
            if part.failed:
                block["is_error"] = True
            return [block]


def _assistant_block(part: Text | Reasoning | Call | Opaque) -> list[dict[str, Any]]:
    match part:
        case Text(text=text):
            return _text_block(text)
        case Reasoning(raw=raw):
            # Thinking without a signature was cut off, or another kind of model wrote it.
            return [] if raw.get("type") == "thinking" and not raw.get("signature") else [raw]
        case Opaque(raw=raw):
            return [raw]
        case Call():
            return [
                {
                    "type": "tool_use",
                    "id": _wire_id(part.provider_id, part.id),
                    "name": _NOT_IN_NAME.sub("_", part.tool)[:TOOL_NAME_CHARS] or "unnamed",
                    "input": _input(part),
                }
            ]


def _text_block(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}] if text.strip() else []


def _input(call: Call) -> dict[str, Any]:
    if call.args is not None:
        return call.args
    return {INVALID_JSON: call.raw} if call.raw else {}


def _wire_id(provider_id: str, ours: str) -> str:
    # Another provider may have made the id: then ours stands for it, in the call and in its result alike.
    return provider_id if _ID.fullmatch(provider_id) else ours


def _media_block(part: Media) -> dict[str, Any]:
    block = "image" if part.kind == "image" else "document"
    if part.url is not None:
        return {"type": block, "source": {"type": "url", "url": part.url}}
    data = part.data or ""
    if part.kind == "image" or part.media_type == "application/pdf":
        return {"type": block, "source": {"type": "base64", "media_type": part.media_type, "data": data}}
    if part.media_type.startswith("text/"):
        try:
            text = base64.b64decode(data, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise BadModelRequest("A text file in the conversation is not UTF-8.") from error
        return {"type": block, "source": {"type": "text", "media_type": "text/plain", "data": text}}
    raise BadModelRequest(f"This model cannot read files of the type {part.media_type}.")
