"""Chats whose platform is asked by HTTP with JSON: Slack, Telegram, and what speaks like them.

    async with SlackChannel(token=…, chat="C0123") as channel:
        await midstream.forward(run_id, channel)

Another platform is a subclass with its two requests and the reading of its answers.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpx2

from midstream.outbound.contract import ChannelError, ChannelGone, RetryAfter

TIMEOUT_S: Final = 30.0
DEFAULT_WAIT_S: Final = 5.0
"""When a platform says that it is too much, and not for how long."""

# Of Slack's `error` codes those that pass by themselves.
_SLACK_PASSING: Final = frozenset(
    {"fatal_error", "internal_error", "request_timeout", "service_unavailable", "team_added_to_org", "update_failed"}
)
_SLACK_TOO_MUCH: Final = frozenset({"ratelimited", "rate_limited"})


class ChatChannel:
    """What the platforms have in common: one client, its errors, and `429` with `Retry-After`. `url`: where the API is;
    methods are paths below it. Close it, or use it as a context manager.
    """

    max_chars = 4000

    def __init__(self, *, url: str, headers: Mapping[str, str] | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._url = url.rstrip("/")
        self._client = httpx2.AsyncClient(headers=headers, timeout=timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._client.aclose()

    async def call(self, method: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The platform's answer as it is, whatever its status, if it is a JSON object. Raises `ChannelError`."""
        try:
            response = await self._client.post(f"{self._url}/{method}", json=fields)
        except httpx2.HTTPError as error:
            raise ChannelError(f"{type(error).__name__}: {error}") from error
        try:
            answer = response.json()
        except ValueError:
            answer = None
        told = _seconds(response.headers.get("retry-after"))
        if response.status_code == httpx2.codes.TOO_MANY_REQUESTS:
            raise RetryAfter(told if told is not None else self.wait_in(answer))
        if response.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR or not isinstance(answer, dict):
            raise ChannelError(f"{method}: status {response.status_code}")
        return {**answer, "retry_after": told}

    def wait_in(self, answer: Any) -> float:
        """Seconds to wait that an answer of the platform names in its body."""
        del answer
        return DEFAULT_WAIT_S


class SlackChannel(ChatChannel):
    """A channel of Slack, by `chat.postMessage` and `chat.update`. `chat`: its id. `thread`: the `ts` of the message to
    answer. The token needs the scope `chat:write`.
    """

    max_chars = 3900

    def __init__(
        self,
        *,
        token: str,
        chat: str,
        thread: str | None = None,
        url: str = "https://slack.com/api",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        super().__init__(url=url, headers={"authorization": f"Bearer {token}"}, timeout_s=timeout_s)
        self._chat = chat
        self._thread = thread

    async def open(self, text: str) -> str:
        """The handle is the channel's id, which Slack may have made of a name, and the message's `ts`."""
        thread = {"thread_ts": self._thread} if self._thread is not None else {}
        answer = await self._ask("chat.postMessage", {"channel": self._chat, "text": _escaped(text), **thread})
        return f"{answer.get('channel', self._chat)}/{answer['ts']}"

    async def edit(self, handle: str, text: str) -> None:
        chat, _, ts = handle.rpartition("/")
        await self._ask("chat.update", {"channel": chat, "ts": ts, "text": _escaped(text)})

    async def _ask(self, method: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self.call(method, fields)
        if answer.get("ok") is True:
            return answer
        code = str(answer.get("error"))
        if code in _SLACK_TOO_MUCH:
            raise RetryAfter(answer["retry_after"] or DEFAULT_WAIT_S)
        raise (ChannelError if code in _SLACK_PASSING else ChannelGone)(f"{method}: {code}")


class TelegramChannel(ChatChannel):
    """A chat of Telegram, by `sendMessage` and `editMessageText`. `chat`: its id, or `@name` of a public one."""

    max_chars = 4096

    def __init__(
        self, *, token: str, chat: str | int, url: str = "https://api.telegram.org", timeout_s: float = TIMEOUT_S
    ) -> None:
        super().__init__(url=f"{url.rstrip('/')}/bot{token}", timeout_s=timeout_s)
        self._chat = chat

    async def open(self, text: str) -> str:
        answer = await self._ask("sendMessage", {"chat_id": self._chat, "text": text})
        return str(answer["result"]["message_id"])

    async def edit(self, handle: str, text: str) -> None:
        await self._ask("editMessageText", {"chat_id": self._chat, "message_id": int(handle), "text": text})

    async def _ask(self, method: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self.call(method, fields)
        if answer.get("ok") is True:
            return answer
        why = str(answer.get("description"))
        if answer.get("error_code") == httpx2.codes.TOO_MANY_REQUESTS:
            raise RetryAfter(self.wait_in(answer))
        if "message is not modified" in why:
            return answer
        raise ChannelGone(f"{method}: {why}")

    def wait_in(self, answer: Any) -> float:
        named = answer.get("parameters") if isinstance(answer, dict) else None
        seconds = named.get("retry_after") if isinstance(named, dict) else None
        return float(seconds) if isinstance(seconds, int | float) else DEFAULT_WAIT_S


def _escaped(text: str) -> str:
    """Slack reads these three as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None
