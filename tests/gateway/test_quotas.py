"""How many connections one person and one address may have, and that every place comes back."""

import asyncio
import json

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from midstream.gateway.auth import Credentials
from midstream.gateway.quotas import Quotas
from midstream.runs import Principal
from midstream_protocol.errors import QuotaExceeded
from tests.gateway.conftest import House, Open
from tests.gateway.raw import raw_peer


def test_places_of_one_user_and_of_one_address_are_counted_apart() -> None:
    quotas = Quotas(per_user=2, per_address=3)
    quotas.take("ann", "10.0.0.1")
    quotas.take("ann", "10.0.0.2")
    with pytest.raises(QuotaExceeded, match="you have 2"):
        quotas.take("ann", "10.0.0.3")
    quotas.take("bob", "10.0.0.1")
    quotas.take("eve", "10.0.0.1")
    with pytest.raises(QuotaExceeded, match="address"):
        quotas.take("joe", "10.0.0.1")
    # What was refused was not counted.
    quotas.give("ann", "10.0.0.1")
    quotas.take("joe", "10.0.0.1")
    quotas.take("ann", "10.0.0.3")


def test_zero_is_no_bound_and_a_server_that_knows_no_address_bounds_none() -> None:
    free = Quotas(per_user=0, per_address=0)
    for _ in range(100):
        free.take("ann", "10.0.0.1")
    by_address = Quotas(per_user=0, per_address=1)
    for _ in range(100):
        by_address.take("ann", None)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("10.0.0.1", "10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("a name", "a name", True),
    ],
)
def test_an_ipv6_customer_is_one_address(one: str, other: str, same: bool) -> None:
    quotas = Quotas(per_user=0, per_address=1)
    quotas.take("ann", one)
    if same:
        with pytest.raises(QuotaExceeded):
            quotas.take("ann", other)
    else:
        quotas.take("ann", other)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("ab"), st.sampled_from(["1.1.1.1", "2.2.2.2", None]))))
def test_never_more_than_allowed_and_nothing_is_remembered_of_who_left(
    steps: list[tuple[bool, str, str | None]],
) -> None:
    quotas = Quotas(per_user=2, per_address=2)
    held: list[tuple[str, str | None]] = []
    for takes, user, address in steps:
        if takes:
            full = sum(u == user for u, _ in held) >= 2
            full |= address is not None and sum(a == address for _, a in held) >= 2
            if full:
                with pytest.raises(QuotaExceeded):
                    quotas.take(user, address)
            else:
                quotas.take(user, address)
                held.append((user, address))
        elif held:
            quotas.give(*held.pop())
    for each in held:
        quotas.give(*each)
    assert not quotas._users
    assert not quotas._addresses


def by_token(credentials: Credentials) -> Principal | None:
    return Principal(id=credentials.token or "nobody", name="x")


async def refused(house: House, **options: object) -> tuple[int, dict[str, object]]:
    with pytest.raises(ConnectionClosed) as closed:
        async with house.peer(ready=False, **options) as peer:
            await peer.receive()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, json.loads(closed.value.rcvd.reason)


@pytest.mark.asyncio
async def test_one_users_sockets_and_streams_are_counted_together(open_house: Open) -> None:
    house = await open_house(max_connections_per_user=2, authenticate=by_token)
    ann = {"authorization": "Bearer ann"}
    async with house.peer(additional_headers=ann) as peer:
        run_id = (await peer.ask("run.start", {"input": "gate a; say 1"}))["run_id"]
        async with house.server.http.stream("GET", f"/v1/runs/{run_id}/events", headers=ann) as stream:
            assert stream.status_code == 200
            code, reason = await refused(house, additional_headers=ann)
            assert code == 4504
            assert reason["retry_after_s"]
            assert reason["text"]
            answer = await house.server.http.get(f"/v1/runs/{run_id}/events", headers=ann)
            assert answer.status_code == 429
            assert answer.json()["error"]["code"] == "quota_exceeded"
            assert int(answer.headers["retry-after"]) > 0
            # Others are not concerned.
            async with house.peer(additional_headers={"authorization": "Bearer bob"}) as other:
                await other.ping()
        async with asyncio.timeout(5):
            while house.gateway.connected > 1:
                await peer.ping()
        async with house.peer(additional_headers=ann) as again:
            await again.ping()


@pytest.mark.asyncio
@pytest.mark.parametrize("leave", ["close", "abort", "reset", "server"])
async def test_a_place_comes_back_however_its_connection_ended(open_house: Open, leave: str) -> None:
    house = await open_house(max_connections_per_address=1)
    if leave == "reset":
        async with raw_peer(house.server.url) as raw:
            assert (await refused(house))[0] == 4504
            raw.reset()
    else:
        async with house.peer() as peer:
            assert (await refused(house))[0] == 4504
            if leave == "abort":
                peer.socket.transport.abort()
            elif leave == "server":
                next(iter(house.gateway._clients)).close_for_drain()
    await house.empty()
    async with house.peer() as again:
        await again.ping()


@pytest.mark.asyncio
async def test_who_leaves_during_the_handshake_holds_no_place(open_house: Open) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slowly(credentials: Credentials) -> Principal:
        asked.set()
        await answer.wait()
        return Principal(id="ann", name="x")

    house = await open_house(max_connections_per_user=1, authenticate=slowly)
    async with raw_peer(house.server.url, ready=False) as raw:
        await asked.wait()
        raw.reset()
    answer.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*house.server.server.server_state.tasks)
    assert house.gateway.connected == 0
    async with house.peer() as peer:
        await peer.ping()


@pytest.mark.asyncio
async def test_a_server_that_is_full_says_so_in_the_same_way(open_house: Open) -> None:
    house = await open_house(max_connections=1)
    async with house.peer() as peer:
        code, reason = await refused(house)
        assert (code, reason["retry_after_s"]) == (4504, 5)
        run_id = (await peer.ask("run.start", {"input": "gate a"}))["run_id"]
        answer: httpx2.Response = await house.server.http.get(f"/v1/runs/{run_id}/events")
        assert answer.status_code == 429
