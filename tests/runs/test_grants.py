"""Grants over every store: written with the answer that gives them, and there in the server's next life."""

import asyncio
from typing import Any

import msgspec
import pytest

from midstream.log import LogUnavailable
from midstream.runs import Port
from midstream.runs.contract import RunFailure
from midstream.runs.grants import SCOPES, Leave
from midstream.runs.keys import namespace
from midstream.testing import ManualClock
from midstream_protocol.commands import ApprovalRespond, Remember
from tests.runs.conftest import Open
from tests.runs.house import House
from tests.runs.say import approval, call_record, for_ever
from tests.runs.simple import ME

pytestmark = pytest.mark.asyncio

SPACE = namespace(ME.id)


async def asks(port: Port) -> None:
    question = msgspec.structs.replace(approval(port, seconds=9999), remember_scopes=list(SCOPES))
    await port.ask(question, journal=[call_record()])
    await for_ever(port)


async def answered(server: House, remember: Remember) -> str:
    run = await server.start()
    await (await server.attach(run)).until("approval.required")
    said = ApprovalRespond(approval_id="a1", decision="approve", remember=remember)
    receipt = await server.send(run, said, command_id="answer")
    assert receipt.status == "accepted"
    return run


async def back(server: House, run: str) -> Port:
    """The run's port in the server's next life."""
    await server.crash()
    await server.open()
    await (await server.attach(run)).until("approval.resolved")
    while len(server.ports) < 2:  # noqa: ASYNC110 - a program begins without telling anybody
        await asyncio.sleep(0)
    return server.ports[-1]


@pytest.mark.parametrize("scope", SCOPES)
async def test_it_is_there_in_the_next_life_until_its_time(house: Open, clock: ManualClock, scope: Any) -> None:
    server = await house(asks)
    run = await answered(server, Remember(scope=scope, expires_in_s=60))
    port = await back(server, run)
    (resolved,) = [event.payload for event in await server.log(run, ended=False) if event.type == "approval.resolved"]
    for _ in range(2):
        assert await port.leave_for("srv_do", SCOPES) == Leave(grant_id=resolved.grant_id, scope=scope)
        assert await port.leave_for("srv_do", [each for each in SCOPES if each != scope]) is None
        assert await port.leave_for("srv_other", SCOPES) is None
        await clock.advance(29)
    await clock.advance(3)
    assert await port.leave_for("srv_do", SCOPES) is None


async def test_the_answer_and_its_grant_are_written_or_neither_is(house: Open) -> None:
    server = await house(asks)
    run = await server.start()
    await (await server.attach(run)).until("approval.required")
    server.held.broken = LogUnavailable("no")
    said = ApprovalRespond(approval_id="a1", decision="approve", remember=Remember(scope="always"))
    assert (await server.send(run, said, command_id="answer")).code == "unavailable"
    assert await server.store.records.list(f"grant.{SPACE}") == ()
    server.held.broken = None
    await server.clock.advance(1)
    for _ in range(2):
        assert (await server.send(run, said, command_id="answer")).status == "accepted"
        assert [record.version for record in await server.store.records.list(f"grant.{SPACE}")] == [1]


async def test_a_store_that_fails_gives_no_leave(house: Open) -> None:
    server = await house(asks)
    await answered(server, Remember(scope="always"))
    (port,) = server.ports
    await server.store.aclose()
    with pytest.raises(RunFailure):
        await port.leave_for("srv_do", SCOPES)
    await server.store.open()
