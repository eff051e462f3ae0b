"""HTTP answers: one form for what went well, one for what did not, and the headers that all carry."""

from typing import Any, Final

import msgspec
from starlette.responses import Response

from midstream.gateway.errors import error_body
from midstream_protocol.errors import ProtocolError, Unauthorized

RETRY_AFTER_S: Final = "1"
"""With 429 and 503: soon, because both pass quickly here."""

COMMON_HEADERS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class Json(Response):
    """`content` is anything msgspec encodes."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


class HttpError(ProtocolError):
    """A refusal that only HTTP has: its code and status are its own."""

    def __init__(self, status: int, code: str, text: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        # The class variables are what every other refusal has per type; here they are per answer.
        self.status = status  # type: ignore[misc]
        self.code = code  # type: ignore[misc]
        self.headers = headers or {}


def error_answer(error: ProtocolError) -> Json:
    """Any refusal as an HTTP answer."""
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    if error.status in (429, 503):
        headers["retry-after"] = RETRY_AFTER_S
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    return Json(error_body(error), status_code=error.status, headers=headers)


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether the caller has this version already."""
    if if_none_match is None:
        return False
    known = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return "*" in known or etag.removeprefix("W/") in known
