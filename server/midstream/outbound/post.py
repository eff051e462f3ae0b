"""One request to a place that somebody else named: only to an address that was judged, never further.

Each has a connection of its own. A connection that is kept belongs to an address, and two names may share one: the
second would be asked over a connection whose certificate was checked for the first.
"""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, Final

import httpx2
from msgspec import Struct

from midstream.outbound.address import AddressRefused, Resolve, permitted

_PORTS: Final = {"http": 80, "https": 443}


class Answer(Struct, kw_only=True, frozen=True):
    """`status` and `headers` (lower-case names) of the answer, or `failure`: why there is none, in a few words.
    `refused`: nothing was sent, because the address may not be sent to.
    """

    status: int = 0
    headers: Mapping[str, str] = {}
    failure: str | None = None
    refused: bool = False


class Sender:
    """`tls` None: the certificates that the machine trusts."""

    def __init__(
        self, *, timeout_s: float, allow_private: bool, resolve: Resolve, tls: ssl.SSLContext | None = None
    ) -> None:
        self._timeout_s = timeout_s
        self._allow_private = allow_private
        self._resolve = resolve
        self._tls = tls

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send it, and wait for the answer's head: what it says beside that is of no interest. Never raises."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post(httpx2.URL(url), headers, body)
        except TimeoutError:
            return Answer(failure=f"no answer within {self._timeout_s:g} s")
        except AddressRefused as refused:
            return Answer(failure=f"refused: {refused}", refused=True)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, UnicodeError, ValueError) as error:
            return Answer(failure=f"{type(error).__name__}: {error}")

    async def _post(self, url: httpx2.URL, headers: Mapping[str, str], body: bytes) -> Answer:
        host = url.raw_host.decode("ascii")
        port = url.port or _PORTS[url.scheme]
        addresses = await permitted(host, port, allow_private=self._allow_private, resolve=self._resolve)
        extensions: dict[str, Any] = {"timeout": {}}
        if url.scheme == "https":
            # Asked for by name and checked against the name, although the connection goes to an address.
            extensions["sni_hostname"] = host
            if self._tls is None:
                # In a thread: reading the machine's certificates takes a while.
                self._tls = await asyncio.to_thread(httpx2.create_ssl_context, trust_env=False)
        failure: httpx2.ConnectError | None = None
        for address in addresses:
            request = httpx2.Request(
                "POST",
                url.copy_with(host=address),
                headers={**headers, "host": url.netloc.decode("ascii"), "connection": "close"},
                content=body,
                extensions=extensions,
            )
            try:
                return await self._ask(request)
            except httpx2.ConnectError as error:
                failure = error
        assert failure is not None
        raise failure

    async def _ask(self, request: httpx2.Request) -> Answer:
        transport = httpx2.AsyncHTTPTransport(verify=self._tls or False, trust_env=False)
        async with transport:
            response = await transport.handle_async_request(request)
            try:
                return Answer(status=response.status_code, headers=dict(response.headers))
            finally:
                await response.aclose()
