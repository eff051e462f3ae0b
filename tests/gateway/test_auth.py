"""Credentials, in every way they may come, and doors that are closed to pages of other sites."""

import base64

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from midstream.gateway.auth import LOCAL, Credentials, LocalAuthenticator, credentials_of
from midstream.runs import Principal
from tests.gateway.conftest import House, Open

pytestmark = pytest.mark.asyncio

TOKEN = "s3cret-tökén"


def encoded(token: str) -> str:
    return base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


async def test_the_local_principal_needs_no_token_and_stays_the_same_with_one() -> None:
    assert await LocalAuthenticator(None).authenticate(Credentials()) == LOCAL
    secured = LocalAuthenticator(TOKEN)
    assert await secured.authenticate(Credentials(token=TOKEN)) == LOCAL
    for wrong in (None, "", TOKEN[:-1], TOKEN + "x", "\ud800"):
        assert await secured.authenticate(Credentials(token=wrong)) is None


async def test_where_a_token_is_found() -> None:
    assert credentials_of({"authorization": f"Bearer {TOKEN}"}).token == TOKEN
    assert credentials_of({"authorization": f"bearer  {TOKEN} "}).token == TOKEN
    assert credentials_of({"authorization": "Basic abc"}).token is None
    assert credentials_of({"authorization": "Bearer "}).token is None
    assert credentials_of({}, ["midstream.v1.json", f"bearer.{encoded(TOKEN)}"]).token == TOKEN
    assert credentials_of({"authorization": "Bearer a"}, [f"bearer.{encoded('b')}"]).token == "a"
    for unreadable in ("bearer.", "bearer.***", "bearer._w", "bearer.a"):
        assert credentials_of({}, [unreadable]).token is None


async def test_credentials_never_print_their_token() -> None:
    assert TOKEN not in repr(credentials_of({"authorization": f"Bearer {TOKEN}"}))


async def test_a_websocket_with_either_form_of_token(open_house: Open) -> None:
    house = await open_house(token=TOKEN)
    async with house.peer(additional_headers={"authorization": f"Bearer {TOKEN}".encode().decode("latin-1")}):
        pass
    async with house.peer(subprotocols=["midstream.v1.json", f"bearer.{encoded(TOKEN)}"]) as peer:
        # The token is never echoed.
        assert peer.socket.subprotocol == "midstream.v1.json"
        await peer.ping()


@pytest.mark.parametrize("options", [{}, {"additional_headers": {"authorization": "Bearer wrong"}}])
async def test_bad_credentials_are_accepted_then_closed_with_4500(open_house: Open, options: dict[str, object]) -> None:
    house = await open_house(token=TOKEN)
    async with house.peer(ready=False, **options) as peer:
        with pytest.raises(ConnectionClosed) as closed:
            await peer.receive()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4500


async def test_http_without_credentials_is_401_and_health_is_open(open_house: Open) -> None:
    house = await open_house(token="plain")
    for path in ("/v1/runs", "/v1/agents", "/v1/runs/x", "/v1/runs/x/events"):
        answer = await house.server.http.get(path)
        assert answer.status_code == 401, path
        assert answer.json()["error"]["code"] == "unauthorized"
        assert answer.headers["www-authenticate"] == "Bearer"
    assert (await house.server.http.get("/v1/runs", headers={"authorization": "Bearer plain"})).status_code == 200
    for path in ("/healthz", "/readyz", "/v1/schema"):
        assert (await house.server.http.get(path)).status_code == 200


async def who(credentials: Credentials) -> Principal | None:
    names = {"a1": "alice", "a2": "alice", "b1": "bob"}
    name = names.get(credentials.token or "")
    return Principal(id=name, name=name.title()) if name else None


async def test_an_own_authenticator_keeps_principals_apart(open_house: Open) -> None:
    house = await open_house(authenticate=who)
    alice, bob = ({"additional_headers": {"authorization": f"Bearer {token}"}} for token in ("a1", "b1"))
    async with house.peer(**alice) as a, house.peer(**bob) as b:
        assert a.frames[0]["payload"]["principal"] == {"id": "alice", "name": "Alice"}
        mine = (await a.ask("run.start", {"input": "say 1", "run_id": "same"}))["run_id"]
        assert (await b.ask("run.attach", {}, run_id=mine))["code"] == "not_found"
        assert (await b.ask("run.cancel", {}, run_id=mine))["code"] == "not_found"
        # Run ids are namespaced: bob may have a run of that name.
        assert (await b.ask("run.start", {"input": "say 1", "run_id": "same"}))["status"] == "accepted"
    listed = await house.server.http.get("/v1/runs", headers={"authorization": "Bearer a2"})
    assert [item["run_id"] for item in listed.json()["items"]] == ["same"]


async def test_auth_refresh_takes_a_token_of_the_same_principal_only(open_house: Open) -> None:
    house = await open_house(authenticate=who)
    async with house.peer(additional_headers={"authorization": "Bearer a1"}) as peer:
        assert (await peer.ask("auth.refresh", {"token": "a2"}))["status"] == "accepted"
        assert (await peer.ask("auth.refresh", {"token": "b1"}))["code"] == "forbidden"
        assert (await peer.ask("auth.refresh", {"token": "zz"}))["code"] == "unauthorized"
        await peer.ping()


async def test_an_authenticator_that_fails_is_told_apart_from_bad_credentials(open_house: Open) -> None:
    def broken(credentials: Credentials) -> Principal | None:
        raise RuntimeError("the directory is down: host 10.0.0.7")

    house = await open_house(authenticate=broken)
    async with house.peer(ready=False) as peer:
        with pytest.raises(ConnectionClosed) as closed:
            await peer.receive()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4004
    answer = await house.server.http.get("/v1/runs")
    assert answer.status_code == 500
    assert "10.0.0.7" not in answer.text


@pytest.mark.parametrize(
    ("headers", "fine"),
    [
        ({}, True),
        ({"origin": "{own}"}, True),
        ({"origin": "https://ide.example"}, True),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "{own}.evil.example"}, False),
        ({"origin": "https://{host}"}, False),
        ({"host": "evil.example"}, False),
        ({"host": "evil.example", "origin": "http://evil.example"}, False),
        ({"host": "localhost"}, True),
    ],
)
async def test_origin_and_host_on_every_door(open_house: Open, headers: dict[str, str], fine: bool) -> None:
    house = await open_house(allowed_origins=("https://ide.example",))
    own = house.server.url
    sent = {k: v.format(own=own, host=own.removeprefix("http://")) for k, v in headers.items()}
    for path in ("/healthz", "/v1/runs", "/v1/agents"):
        answer = await house.server.http.get(path, headers=sent)
        assert answer.status_code == (200 if fine else 403)
        if not fine:
            assert answer.json()["error"]["code"] == "forbidden"
    assert (await house.server.http.post("/v1/runs", json={"input": "say 1"}, headers=sent)).status_code == (
        201 if fine else 403
    )
    options = {"additional_headers": {k: v for k, v in sent.items() if k == "origin"}}
    if "host" in sent:
        return
    if fine:
        async with house.peer(**options):
            return
    with pytest.raises(InvalidStatus) as refused:
        async with house.peer(**options):
            pass
    assert refused.value.response.status_code == 403
    assert b"MIDSTREAM_ALLOWED_ORIGINS" in (refused.value.response.body or b"")


async def test_an_allowed_page_of_another_origin_gets_cors_and_only_it(open_house: Open) -> None:
    house = await open_house(allowed_origins=("https://ide.example",))
    headers = {"origin": "https://ide.example"}
    answer = await house.server.http.get("/v1/agents", headers=headers)
    assert answer.headers["access-control-allow-origin"] == "https://ide.example"
    assert "origin" in answer.headers["vary"].lower()
    preflight = await house.server.http.request(
        "OPTIONS", "/v1/runs", headers={**headers, "access-control-request-method": "POST"}
    )
    assert preflight.status_code == 204
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    own = await house.server.http.get("/v1/agents", headers={"origin": house.server.url})
    assert "access-control-allow-origin" not in own.headers
    evil = await house.server.http.get("/v1/agents", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in evil.headers


async def test_a_wrong_host_cannot_open_a_websocket(house: House) -> None:
    host, _, port = house.server.url.removeprefix("http://").rpartition(":")
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://evil.example:{port}/v1/ws", host=host, port=int(port), proxy=None)
    assert refused.value.response.status_code == 403
