"""Who is asking. One question, one answer: credentials in, a `Principal` or None out.

Without a token there is one local principal; with a token, whoever shows it *is* that same principal. So a token can
be set later (the laptop becomes a server) and every run made before is still there.
"""

import base64
import binascii
import hashlib
import hmac
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, Protocol

from msgspec import Struct, field

from midstream.runs import Principal

LOCAL: Final = Principal(id="local", name="local")
"""The one principal of a server without an `authenticate` of its own."""

BEARER_SUBPROTOCOL: Final = "bearer."
"""`bearer.<base64url(token)>`: how a browser's WebSocket brings a token. Never echoed, never logged."""


class Credentials(Struct, kw_only=True, frozen=True):
    """What a request brought. `token` is the bearer token, whichever way it came; `headers` have lower-case names."""

    token: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        # A token in a log line is a token lost.
        return f"Credentials(token={'…' if self.token else None})"


class Authenticator(Protocol):
    async def authenticate(self, credentials: Credentials) -> Principal | None:
        """The principal, or None: these credentials open nothing. May be called concurrently."""
        ...


class LocalAuthenticator:
    """Everybody, or everybody who shows the token, is the local principal."""

    def __init__(self, token: str | None) -> None:
        self._expected = _digest(token) if token else None

    async def authenticate(self, credentials: Credentials) -> Principal | None:
        if self._expected is None:
            return LOCAL
        if credentials.token is None:
            return None
        # Equal lengths, so the comparison's time tells nothing of the token, not even its length.
        return LOCAL if hmac.compare_digest(_digest(credentials.token), self._expected) else None


Authenticate = Callable[[Credentials], Awaitable[Principal | None] | Principal | None]


class CallableAuthenticator:
    """`Midstream(authenticate=who)`: an application's own function, plain or async."""

    def __init__(self, who: Authenticate) -> None:
        self._who = who

    async def authenticate(self, credentials: Credentials) -> Principal | None:
        found = self._who(credentials)
        return await found if inspect.isawaitable(found) else found


def authenticator(authenticate: Authenticator | Authenticate | None, *, token: str | None) -> Authenticator:
    """The authenticator an app was configured with. An own one is not mixed with the token setting."""
    if authenticate is None:
        return LocalAuthenticator(token)
    if hasattr(authenticate, "authenticate"):
        return authenticate
    return CallableAuthenticator(authenticate)


def credentials_of(headers: Mapping[str, str], subprotocols: Iterable[str] = ()) -> Credentials:
    """`Authorization: Bearer` first, then the bearer subprotocol. What cannot be read is no credential."""
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    token = _utf8(rest.strip()) if scheme.lower() == "bearer" and rest.strip() else None
    if token is None:
        token = next(filter(None, map(_subprotocol_token, subprotocols)), None)
    return Credentials(token=token, headers=headers)


def _subprotocol_token(subprotocol: str) -> str | None:
    if not subprotocol.startswith(BEARER_SUBPROTOCOL):
        return None
    encoded = subprotocol.removeprefix(BEARER_SUBPROTOCOL)
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        return raw.decode() or None
    except (binascii.Error, ValueError):
        return None


def _utf8(header: str) -> str:
    """Header bytes are read as Latin-1 (RFC 9110 §5.5); who sends a token beyond ASCII means UTF-8."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeError:
        return header


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
