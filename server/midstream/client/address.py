"""Where a server is. One URL names it; the WebSocket's address and the rest are made from it. Pure."""

import ipaddress
import re
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

_WEB: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_DOOR: Final = re.compile(r"/v1(/ws)?/?$")
_SOCKET: Final = {"http": "ws", "https": "wss"}


class BadAddress(ValueError):
    """The URL does not name a server. The text says what one looks like."""


class Address:
    """`url` is `http(s)://host[:port][/prefix]` (also `ws(s)://`). Raises `BadAddress`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        try:
            self.host = parts.hostname or ""
            _ = parts.port
        except ValueError as wrong:
            raise BadAddress(f"{url!r} is no server address ({wrong}); use one such as http://127.0.0.1:8484") from None
        if parts.scheme not in _WEB or not self.host:
            raise BadAddress(f"{url!r} is no server address; use one such as http://127.0.0.1:8484")
        # Some give the WebSocket's own address: it names the server as well.
        self._parts = (_WEB[parts.scheme], parts.netloc, _DOOR.sub("", parts.path).rstrip("/"))

    def __str__(self) -> str:
        return self.web()

    def web(self, path: str = "") -> str:
        """The http(s) URL of `path` on this server."""
        scheme, netloc, prefix = self._parts
        return urlunsplit((scheme, netloc, prefix + path, "", ""))

    def socket(self, *, client_id: str) -> str:
        """The WebSocket's URL."""
        scheme, netloc, prefix = self._parts
        return urlunsplit((_SOCKET[scheme], netloc, f"{prefix}/v1/ws", f"client_id={quote(client_id, safe='')}", ""))

    @property
    def loopback(self) -> bool:
        """Whether it is this machine: then no proxy of the environment is asked."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def segment(text: str) -> str:
    """What a person typed, as one part of a path: a slash or a question mark in it must not ask for something else,
    nor a dot, which is the path without its last part.
    """
    return quote(text, safe="").replace(".", "%2E")
