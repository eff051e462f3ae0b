"""Models behind the Messages API: Anthropic's own, and any compatible server at a base URL.

The only file that imports the SDK (an import of about a second: `choose` imports this module only when needed). Of
the SDK it takes transport, authentication, types of errors and tracing; what the events mean is `anthropic_answer`.

Silence is measured in bytes, by the HTTP client's read timeout, which also covers the wait for the reply's headers:
so pings, which the SDK does not pass on, are a sign of life. A server that only pings is given up after
`PINGS_ONLY_FACTOR` times `idle_timeout_s`.

Retries are the loop's, which shows them to the user; the SDK's are off unless asked for.
"""

import asyncio
import contextlib
import ipaddress
import os
import ssl
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final
from urllib.parse import urlsplit

import anthropic
import httpx2
from anthropic.types import RawMessageStreamEvent

from midstream.agents.conversation import new_call_id
from midstream.agents.providers.anthropic_answer import Answer
from midstream.agents.providers.anthropic_errors import error_for, retry_after_s
from midstream.agents.providers.anthropic_request import request_body
from midstream.agents.providers.contract import (
    BadModelRequest,
    ModelDenied,
    ModelError,
    ModelEvent,
    ModelFailed,
    ModelRequest,
    ModelStalled,
    ModelUnreachable,
)
from midstream.logs import Logger

CONNECT_TIMEOUT_S: Final = 10.0
PINGS_ONLY_FACTOR: Final = 10

# After message_stop the body's end is due at once; reading it lets the connection be used again.
END_OF_BODY_S: Final = 0.25

# The connections of the SDK's own client, for the one that we make.
LIMITS: Final = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)

WINDOW_TOKENS: Final = 200_000
"""The window of Anthropic's models, which all bear this first name."""
_OWN_MODELS: Final = "claude-"

# What a server without authentication is sent: the SDK insists on a key.
NO_KEY: Final = "none"

_log = Logger("midstream.anthropic")

_Stream = anthropic.AsyncStream[RawMessageStreamEvent]


class AnthropicProvider:
    """The official SDK behind our contract. Streams may run concurrently.

    At least one of `api_key` and `base_url` must be given: raises `ValueError` without, and for a base URL that is
    none. `new_call_id` makes the ids of calls.
    """

    name = "anthropic"

    def __init__(
        self,
        *,
        api_key: str | None,
        base_url: str | None,
        default_model: str = "",
        max_retries: int = 0,
        new_call_id: Callable[[], str] = new_call_id,
    ) -> None:
        base_url = base_url or os.environ.get("ANTHROPIC_BASE_URL") or None
        if base_url is None and not api_key:
            raise ValueError("an API key or a base URL is needed to reach a model of Anthropic's API")
        self._default_model = default_model
        self._new_call_id = new_call_id
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key or NO_KEY,
            base_url=base_url,
            max_retries=max_retries,
            http_client=_direct_client(base_url) if base_url is not None and _is_loopback(base_url) else None,
        )

    @property
    def default_model(self) -> str:
        return self._default_model

    def window(self, model: str) -> int | None:
        """Of a model that a compatible server names in its own way nothing is known."""
        return WINDOW_TOKENS if (model or self._default_model).startswith(_OWN_MODELS) else None

    async def aclose(self) -> None:
        await self._client.close()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        model = request.model or self._default_model
        answer = Answer(new_call_id=self._new_call_id)
        try:
            # Leaving this block closes the connection, unless the body was read to its end.
            async with await self._open(request, model=model) as events:
                limit_s = request.idle_timeout_s * PINGS_ONLY_FACTOR
                while not answer.complete:
                    event = await _within(limit_s, _next(events))
                    for ours in answer.feed(event.to_dict(mode="json", warnings=False)):
                        yield ours
                await _read_to_end(events)
            finished = answer.finished()
        except ModelError:
            raise
        except Exception as error:
            failed = _model_error(error, model=model)
            _log.warning("a model call failed", code=failed.code, at=_where(self._client.base_url), cause=_cause(error))
            raise failed from error
        yield finished

    async def _open(self, request: ModelRequest, *, model: str) -> _Stream:
        if not model:
            raise BadModelRequest("No model is named.")
        body = request_body(request, model=model)
        client = self._client
        if request.conversation_id:
            traced = {**client.open_telemetry, "conversation_id": request.conversation_id}
            client = client.with_options(open_telemetry=traced)  # type: ignore[arg-type]
        idle_s = request.idle_timeout_s
        timeout = httpx2.Timeout(connect=min(CONNECT_TIMEOUT_S, idle_s), read=idle_s, write=idle_s, pool=idle_s)
        stream: _Stream = await _within(idle_s * PINGS_ONLY_FACTOR, client.messages.create(**body, timeout=timeout))
        return stream


async def _within(limit_s: float, awaitable: Any) -> Any:
    try:
        async with asyncio.timeout(limit_s):
            return await awaitable
    except TimeoutError as error:
        raise ModelStalled(_STALLED) from error


async def _next(events: _Stream) -> RawMessageStreamEvent:
    event = await anext(events, None)
    if event is None:
        raise ModelUnreachable("The model's connection ended before its message did.")
    return event


async def _read_to_end(events: _Stream) -> None:
    # The message is complete: whatever goes wrong now concerns only the connection, and that is closed.
    with contextlib.suppress(TimeoutError, httpx2.HTTPError, anthropic.AnthropicError, ValueError):
        async with asyncio.timeout(END_OF_BODY_S):
            while await anext(events, None) is not None:
                pass


_STALLED: Final = "The model went silent."
_UNREACHABLE: Final = "The model cannot be reached."


def _model_error(error: Exception, *, model: str) -> ModelError:
    match error:
        case anthropic.APIStatusError():
            return error_for(
                status=error.status_code,
                type=error.type if isinstance(error.type, str) else None,
                message=str(error),
                retry_after_s=retry_after_s(error.response.headers, now_s=time.time()),
                model=model,
            )
        case httpx2.ReadTimeout():
            return ModelStalled(_STALLED)
        case anthropic.APITimeoutError() if isinstance(error.__cause__, httpx2.ReadTimeout):
            return ModelStalled(_STALLED)
        case anthropic.APIConnectionError() | httpx2.TransportError():
            return ModelUnreachable(_UNREACHABLE)
        case anthropic.CredentialsError():
            return ModelDenied("There are no usable credentials for the model's provider.")
        case _:
            # Bytes that are no event, or an event of a shape that nobody expected.
            return ModelFailed("The model's provider sent something unreadable.")


def _where(url: httpx2.URL) -> str:
    # Without its path and the credentials that may stand in it.
    return f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}"


def _cause(error: BaseException) -> str:
    """For the server's own log. Without the provider's words, which may quote the conversation."""
    if isinstance(error, anthropic.APIStatusError):
        return f"{type(error).__name__}: status {error.status_code}"
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    # A connection's error speaks of the connection; what cannot be parsed stands in the parser's.
    lost = isinstance(error, anthropic.APIConnectionError | httpx2.TransportError)
    return f"{type(first).__name__}: {first}" if lost and str(first) else type(first).__name__


def _direct_client(base_url: str) -> httpx2.AsyncClient:
    # A transport of our own: with the SDK's, a proxy set in the environment would be asked for loopback too.
    # Without TLS an empty context will do, which saves loading the authorities (70 ms, on a running loop).
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if base_url.startswith("http://") else True
    transport = httpx2.AsyncHTTPTransport(verify=tls, limits=LIMITS)
    return anthropic.DefaultAsyncHttpxClient(transport=transport, trust_env=False)


def _is_loopback(base_url: str) -> bool:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("the base URL is no http:// or https:// URL")
    try:
        return ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return parts.hostname == "localhost"
