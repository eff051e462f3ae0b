"""The token, or whoever makes one: asked for every attempt to connect and for every request."""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable

import httpx2

from midstream.client.errors import Unreachable

GetToken = Callable[[], str | Awaitable[str | None] | None]
"""Returns the token to use now, or None for none. It may be called often: keep what is still valid."""


class Credentials(httpx2.Auth):
    """Also what httpx2 asks for the header of a request."""

    def __init__(self, token: str | None = None, get_token: GetToken | None = None) -> None:
        """At most one of them. Raises ValueError."""
        if token is not None and get_token is not None:
            raise ValueError("give either token or get_token: one says which token to use")
        self._token = token
        self._get_token = get_token

    @property
    def renewable(self) -> bool:
        return self._get_token is not None

    async def token(self) -> str | None:
        """The token to use now. Raises `Unreachable` when `get_token` fails: that may pass, like a lost network."""
        if self._get_token is None:
            return _sendable(self._token)
        try:
            made = self._get_token()
            token = await made if inspect.isawaitable(made) else made
        except Exception as error:
            raise Unreachable(f"get_token failed: {type(error).__name__}: {error}") from error
        return _sendable(token)

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        if token := await self.token():
            request.headers["Authorization"] = f"Bearer {token}"
        yield request


def _sendable(token: str | None) -> str | None:
    """Raises `Unreachable` for one that no header carries, without showing it: the libraries' own errors would."""
    if token is not None and not token.isprintable():
        raise Unreachable("the token has a character that cannot be sent, such as a line break at its end")
    return token
