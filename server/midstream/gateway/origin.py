"""Who may knock at all: exact Host and Origin checks, before a request is looked at any further. Pure.

Why both: a page of any site may open a WebSocket to a server on this machine (browsers apply no same-origin rule to
WebSockets), and a name that an attacker owns may resolve to 127.0.0.1 (DNS rebinding), which makes his page
same-origin with us. The first is seen in `Origin`, the second in `Host`.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})

ANY: Final = "*"
"""In a list: everything is allowed. Only behind a proxy that does the check itself."""

_WILDCARD_BINDS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared with, not bound
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_PAGE_SCHEME: Final = {"ws": "http", "wss": "https"}

Origin = tuple[str, str, int | None]
"""Scheme, host and port, in lower case, with the scheme's default port filled in."""


class DoorRules(Struct, kw_only=True, frozen=True):
    """What `refusal` allows. Build it with `door_rules`."""

    hosts: frozenset[str]
    origins: frozenset[Origin]
    any_host: bool
    any_origin: bool
    any_address: bool
    """Whether a Host that is an IP address is fine: it is no name, so it cannot be rebound."""


def door_rules(*, bound_host: str, allowed_hosts: Iterable[str], allowed_origins: Iterable[str]) -> DoorRules:
    """The rules of a server bound to `bound_host`. Raises ValueError for an origin that is none."""
    hosts = {_plain(host) for host in allowed_hosts}
    origins = set()
    for text in allowed_origins:
        if text != ANY:
            origin = parse_origin(text)
            if origin is None:
                raise ValueError(f"{text!r} is not an origin: write scheme://host or scheme://host:port")
            origins.add(origin)
    return DoorRules(
        hosts=frozenset(hosts | LOOPBACK_NAMES | {_plain(bound_host)}),
        origins=frozenset(origins),
        any_host=ANY in hosts,
        any_origin=ANY in set(allowed_origins),
        any_address=bound_host in _WILDCARD_BINDS,
    )


def refusal(rules: DoorRules, *, scheme: str, host: str | None, origin: str | None) -> str | None:
    """Why this request may not enter, as a text that says what to set; None if it may.

    `scheme` is the request's own (`http`, `https`, `ws`, `wss`). Without an Origin it is no browser page.
    """
    name = host_name(host)
    if not rules.any_host and not _host_allowed(rules, name):
        shown = _shown(host)
        return f"Host {shown} is not served here; if it should be, add its name to MIDSTREAM_ALLOWED_HOSTS"
    if origin is None or rules.any_origin:
        return None
    asked = parse_origin(origin)
    if asked is not None and (asked in rules.origins or asked == _own_origin(scheme, host)):
        return None
    return f"Origin {_shown(origin)} may not use this server; if it should, add it to MIDSTREAM_ALLOWED_ORIGINS"


def is_loopback(host: str) -> bool:
    """Whether what listens on `host` is reached from this machine only."""
    name = _plain(host)
    return name in LOOPBACK_NAMES or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


def crosses(*, scheme: str, host: str | None, origin: str) -> bool:
    """Whether an allowed `origin` is another one than the server's own, so that its browser wants CORS headers."""
    return parse_origin(origin) != _own_origin(scheme, host)


def parse_origin(text: str) -> Origin | None:
    """The parts of an Origin header. None for `null` and for everything that is not exactly scheme, host and port."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    extra = parts.path or parts.query or parts.fragment or parts.username is not None or text.endswith(("?", "#"))
    if not parts.scheme or not parts.hostname or extra or text != text.strip():
        return None
    scheme = parts.scheme.lower()
    return scheme, parts.hostname.lower(), port if port is not None else _DEFAULT_PORTS.get(scheme)


def host_name(host: str | None) -> str | None:
    """The name in a Host header, in lower case without port and brackets; None if there is none to be read."""
    if not host or any(character in host for character in "/?#@ \t"):
        return None
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname.lower().removesuffix(".") if parts.hostname else None


def _host_allowed(rules: DoorRules, name: str | None) -> bool:
    if name is None:
        return False
    return name in rules.hosts or (rules.any_address and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _own_origin(scheme: str, host: str | None) -> Origin | None:
    return parse_origin(f"{_PAGE_SCHEME.get(scheme, scheme)}://{host}") if host else None


def _plain(host: str) -> str:
    return host.strip().lower().strip("[]").removesuffix(".")


def _shown(text: str | None) -> str:
    return repr((text or "")[:100])
