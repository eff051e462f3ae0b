"""Which of our errors a failure of the Messages API is: one table, no SDK.

Some error types say what is wrong whatever the status says (an overloaded provider may answer 500, and an `error`
event inside a stream has the status 200). Others are so general that the status knows better. Hence the order:
telling type, status, general type. Texts are ours, because the provider's may quote the conversation.
"""

import email.utils
import re
from collections.abc import Mapping
from typing import Final

from midstream.agents.providers.contract import (
    BadModelRequest,
    ContextTooLong,
    ModelDenied,
    ModelError,
    ModelFailed,
    ModelOverloaded,
    ModelRateLimited,
)

_TELLING: Final[Mapping[str, type[ModelError]]] = {
    "authentication_error": ModelDenied,
    "permission_error": ModelDenied,
    "billing_error": ModelDenied,
    "rate_limit_error": ModelRateLimited,
    "overloaded_error": ModelOverloaded,
    "request_too_large": ContextTooLong,
    "exceed_context_size_error": ContextTooLong,  # llama.cpp's
}
_BY_STATUS: Final[Mapping[int, type[ModelError]]] = {
    400: BadModelRequest,
    401: ModelDenied,
    402: ModelDenied,
    403: ModelDenied,
    404: BadModelRequest,
    408: ModelFailed,
    409: ModelFailed,
    413: ContextTooLong,
    422: BadModelRequest,
    429: ModelRateLimited,
    503: ModelOverloaded,
    529: ModelOverloaded,
}
_GENERAL: Final[Mapping[str, type[ModelError]]] = {
    "invalid_request_error": BadModelRequest,
    "not_found_error": BadModelRequest,
    "api_error": ModelFailed,
    "timeout_error": ModelFailed,
}
_TEXT: Final[Mapping[type[ModelError], str]] = {
    ModelDenied: "The model's provider refused the server's API key.",
    ModelRateLimited: "The model's provider limits the rate of requests.",
    ModelOverloaded: "The model's provider is overloaded.",
    ModelFailed: "The model's provider failed.",
    ContextTooLong: "The conversation is too long for the model.",
    BadModelRequest: "The model's provider refused the request.",
}

# The API has no error type for this; these are the sentences of Anthropic, llama.cpp and vLLM.
_TOO_LONG: Final = re.compile(
    r"prompt is too long|exceeds? (the )?(available )?context|maximum context length|too many (total )?input tokens",
    re.IGNORECASE,
)

# A provider that asks for more than this is, for a run that somebody watches, simply not available.
RETRY_AFTER_LIMIT_S: Final = 3600.0


def error_for(*, status: int, type: str | None, message: str, retry_after_s: float | None, model: str) -> ModelError:  # noqa: A002
    """`status` is the HTTP status, 200 for an `error` event; `type` and `message` are the provider's."""
    chosen = _TELLING.get(type or "") or _BY_STATUS.get(status) or _GENERAL.get(type or "")
    if chosen is None:
        chosen = BadModelRequest if 400 <= status < 500 else ModelFailed
    if chosen is BadModelRequest and _TOO_LONG.search(message):
        chosen = ContextTooLong
    if chosen is BadModelRequest and (status == 404 or type == "not_found_error"):
        return BadModelRequest(f"The provider does not know the model {model!r}, or the base URL is wrong.")
    return chosen(_TEXT[chosen], retry_after_s=retry_after_s)


def retry_after_s(headers: Mapping[str, str], *, now_s: float) -> float | None:
    """Seconds to wait as the reply's headers say it: in ms, in seconds or as an HTTP date. `now_s` is Unix time."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", text):
            return min(float(text) * unit, RETRY_AFTER_LIMIT_S)
    try:
        at = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(max(0.0, at.timestamp() - now_s), RETRY_AFTER_LIMIT_S)
