"""How many connections and streams one principal, and one network address, may have at the same time."""

from collections import Counter
from ipaddress import IPv6Address, ip_address
from typing import Final

from starlette.types import Scope

from midstream_protocol.errors import QuotaExceeded

RETRY_AFTER_S: Final = 5
"""What who is refused is told to wait: others must go first."""

_NETWORK_BITS: Final = 64
"""One customer's part of an IPv6 address: it chooses the rest as it likes."""


def address_of(scope: Scope) -> str | None:
    """Whom the request came from, as the quota sees it; None: the server does not say (a Unix socket)."""
    client = scope.get("client")
    return client[0] if client else None


class Quotas:
    """0: no bound of that kind. Who took a place gives it back, with the same words, once."""

    def __init__(self, *, per_user: int, per_address: int) -> None:
        self._per_user = per_user
        self._per_address = per_address
        self._users: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()

    def take(self, user: str, address: str | None) -> None:
        """One more. Raises `QuotaExceeded`, and then counts nothing."""
        place = self._network(address)
        if self._per_user and self._users[user] >= self._per_user:
            raise QuotaExceeded(f"you have {self._per_user} connections, as many as may be: close one")
        if place is not None and self._addresses[place] >= self._per_address:
            raise QuotaExceeded(f"your address has {self._per_address} connections, as many as may be")
        if self._per_user:
            self._users[user] += 1
        if place is not None:
            self._addresses[place] += 1

    def give(self, user: str, address: str | None) -> None:
        _less(self._users, user)
        place = self._network(address)
        if place is not None:
            _less(self._addresses, place)

    def _network(self, address: str | None) -> str | None:
        """What is counted together; None: not counted."""
        if not self._per_address or address is None:
            return None
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return address
        if not isinstance(parsed, IPv6Address):
            return str(parsed)
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(IPv6Address(int(parsed) >> _NETWORK_BITS << _NETWORK_BITS))


def _less(counter: Counter[str], key: str) -> None:
    # What has come to nothing is forgotten: there are more addresses than memory.
    if counter[key] > 1:
        counter[key] -= 1
    else:
        del counter[key]
