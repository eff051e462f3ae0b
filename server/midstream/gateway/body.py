"""Reading an HTTP request: its body as a bounded JSON object, its query parameters with their limits."""

import math
from typing import Any, Final

from starlette.requests import Request

from midstream.gateway.answers import HttpError
from midstream_protocol.codec import parse_json
from midstream_protocol.errors import Malformed, NotFound, TooLarge
from midstream_protocol.ids import is_id
from midstream_protocol.limits import MAX_INTEGER

MAX_CURSOR_CHARS: Final = 200

_JSON: Final = "application/json"


async def json_object(request: Request, *, max_bytes: int) -> dict[str, Any]:
    """The body as an object; an empty body is an empty one. Raises `Malformed`, `TooLarge`, `HttpError` (415)."""
    raw = await _bounded(request, max_bytes=max_bytes)
    if not raw.strip():
        return {}
    media_type = request.headers.get("content-type", _JSON).partition(";")[0].strip().lower()
    if media_type != _JSON:
        raise HttpError(415, "unsupported_media_type", f"send the body as {_JSON}")
    tree = parse_json(raw, max_bytes=max_bytes)
    if not isinstance(tree, dict):
        raise Malformed("$: expected an object; send the fields in it")
    return tree


async def _bounded(request: Request, *, max_bytes: int) -> bytes:
    too_large = TooLarge(f"the body is larger than {max_bytes} bytes")
    said = request.headers.get("content-length", "0")
    if said.isdecimal() and int(said) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def path_run_id(request: Request) -> str:
    """Raises `NotFound` for what cannot be a run's id."""
    run_id = request.path_params["run_id"]
    if not is_id(run_id):
        raise NotFound("there is no such run, or it is not yours")
    return str(run_id)


def path_thread_id(request: Request) -> str:
    """Raises `NotFound` for what cannot be a thread's id."""
    thread_id = request.path_params["thread_id"]
    if not is_id(thread_id):
        raise NotFound("there is no such thread, or it is not yours")
    return str(thread_id)


def query_int(request: Request, name: str, *, default: int, low: int, high: int = MAX_INTEGER) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 16 or not low <= int(text) <= high:
        raise Malformed(f"{name}: expected a whole number from {low} to {high}")
    return int(text)


def query_seconds(request: Request, name: str, *, high: float) -> float | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        seconds = float(text) if len(text) <= 16 else math.nan
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= high:
        raise Malformed(f"{name}: expected seconds, a number from 0 to {high:g}")
    return seconds


def query_choice(request: Request, name: str, choices: tuple[str, ...]) -> str | None:
    text = request.query_params.get(name)
    if text is not None and text not in choices:
        raise Malformed(f"{name}: expected one of {', '.join(choices)}")
    return text


def query_cursor(request: Request, name: str) -> str | None:
    """What an earlier answer gave as the place to go on from: opaque, but bounded."""
    text = request.query_params.get(name)
    if text is not None and not (text.isascii() and text.isprintable() and 1 <= len(text) <= MAX_CURSOR_CHARS):
        raise Malformed(f"{name}: expected the next_cursor of the page before")
    return text


def query_id(request: Request, name: str) -> str | None:
    text = request.query_params.get(name)
    if text is not None and not is_id(text):
        raise Malformed(f"{name}: expected 1 to 64 letters, digits, _ or -")
    return text
