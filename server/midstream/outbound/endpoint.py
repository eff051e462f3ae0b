"""Which URLs can be the place of a webhook, and what is wrong with the others, in a sentence that says what to give.

Judged by the text alone, so that a mistake is told at once. What a name resolves to is judged when something is sent
(address.py): that may change, and only then does it count.
"""

from typing import Final

import httpx2

from midstream.outbound.address import is_local_name, literal, refusal

_SCHEMES: Final = ("https", "http")


def wrong_with(url: str, *, allow_private: bool) -> str | None:
    """What is wrong with this URL, for the person who gave it; None: nothing that can be seen."""
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError, UnicodeError) as error:
        return f"it is no URL ({error}): give one such as https://example.org/hooks"
    if parsed.scheme not in _SCHEMES or not parsed.host:
        return "it must begin with https:// or http:// and name a host: give one such as https://example.org/hooks"
    if parsed.userinfo:
        return "it has a user or password in it: leave them out, webhooks are signed"
    host = parsed.raw_host.decode("ascii")
    address = literal(host)
    why = refusal(address, allow_private=allow_private) if address is not None else None
    if why is None and is_local_name(host) and not allow_private:
        why = "is a private address"
    if why is None:
        return None
    allowed = "" if allow_private else ", or have the operator set MIDSTREAM_WEBHOOK_ALLOW_PRIVATE=true"
    return f"{host} {why}: give one that can be reached from anywhere{allowed}"


def origin(url: str) -> str:
    """`scheme://host:port` of a URL that was checked. The rest may hold secrets: this is what is logged."""
    parsed = httpx2.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"
