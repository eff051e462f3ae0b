"""Which addresses this server may send to on somebody else's word, and finding the addresses of a name.

What a client names as the place of its webhook must not become a door into the network that the server stands in. So a
name is resolved here, each address is judged, and the connection goes to an address that was judged: whoever owns the
name cannot point it elsewhere in between.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host name, for a connection to that port. Raises `OSError`."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA: Final = frozenset(
    ipaddress.ip_address(each) for each in ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254")
)
"""Where clouds tell a machine its secrets, beside the link-local 169.254.169.254."""

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""An IPv4 address in its last 32 bits, which a gateway of the network connects to (RFC 6052)."""


class AddressRefused(Exception):
    """No address of this host may be connected to."""


def refusal(address: str, *, allow_private: bool) -> str | None:
    """Why nothing is sent to this address, in a few words; None: it may be. Not an address at all: ValueError.

    `allow_private` opens loopback and the networks of houses and companies, and nothing else.
    """
    # A link-local address may come with its interface.
    told = ipaddress.ip_address(address.partition("%")[0])
    found = _embedded(told)
    # The embedded address decides, and what it is embedded in must be no worse.
    if found.is_unspecified:
        return "stands for no host"
    if found.is_multicast:
        return "is a multicast address"
    if found.is_link_local or found in _METADATA:
        return "is a link-local or metadata address"
    if not _is_public(found) and not allow_private:
        return "is a private address"
    return None


def _embedded(address: _Address) -> _Address:
    """The IPv4 address that an IPv6 address is only another spelling of."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or (int(address) >> 32 == 0 and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _is_public(address: _Address) -> bool:
    site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not address.is_reserved and not site_local


def literal(host: str) -> str | None:
    """The address that `host` is, however it is written (`127.1` and `0x7f000001` are loopback too); None: a name."""
    host = host.rstrip(".")
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


def is_local_name(host: str) -> bool:
    """Whether the name is this machine's own, whatever it resolves to (RFC 6761)."""
    host = host.rstrip(".").lower()
    return host == "localhost" or host.endswith(".localhost")


async def resolve(host: str, port: int) -> Sequence[str]:
    """As the machine resolves names."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


async def permitted(host: str, port: int, *, allow_private: bool, resolve: Resolve) -> list[str]:
    """The addresses of `host` that may be connected to, at least one. Raises `AddressRefused`, `OSError`."""
    address = literal(host)
    found = [address] if address is not None else await resolve(host, port)
    refusals = {each: refusal(each, allow_private=allow_private) for each in found}
    allowed = [each for each, why in refusals.items() if why is None]
    if not allowed:
        told = ", ".join(f"{each} {why}" for each, why in refusals.items()) or "it has no address"
        raise AddressRefused(told)
    return allowed
