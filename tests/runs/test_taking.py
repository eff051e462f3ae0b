"""Corrections at a safe point: looked at, judged, and taken; between the look and the taking others may act."""

import asyncio

import msgspec
import pytest

from midstream.runs import CorrectionRecord, Port
from midstream_protocol.commands import CorrectionRevoke, RunCorrect
from tests.runs.conftest import Open
from tests.runs.house import House, soon
from tests.runs.say import for_ever, step

pytestmark = pytest.mark.asyncio


async def correct(server: House, port: Port, name: str, *, replan: bool | None = None) -> None:
    payload = RunCorrect(text=name, replan=replan)
    receipt = await server.send(port.start.run_id, payload, command_id=name)
    assert receipt.status == "accepted"


async def test_those_that_were_judged_are_taken_and_the_others_wait(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.record(step())
        await correct(server, port, "one", replan=True)
        await correct(server, port, "two", replan=False)
        await correct(server, port, "three")
        seen = port.due_corrections()
        asked.update({correction.text: correction.asked_replan for correction in seen})
        ids = frozenset(correction.correction_id for correction in seen)
        revoked = await server.send(port.start.run_id, CorrectionRevoke(correction_id="two"))
        assert revoked.status == "accepted"
        await correct(server, port, "late", replan=True)
        taken = await port.corrections(step_id="s1", only=ids, replan=frozenset({"one", "two"}))
        took.append([correction.text for correction in taken])
        took.append([correction.text for correction in port.due_corrections()])
        rest = await port.corrections(step_id="s1")
        took.append([correction.text for correction in rest])
        await port.end(None)

    took: list[list[str]] = []
    asked: dict[str, bool] = {}
    server = await house(body)
    run = await server.start()
    events = await server.log(run)
    assert asked == {"one": True, "two": False, "three": False}
    assert took == [["one", "three"], ["late"], ["late"]]
    applied = [(e.payload.correction_id, e.payload.replanned) for e in events if e.type == "correction.applied"]
    assert applied == [("one", True), ("three", False), ("late", False)]
    loaded = await server.store.log.load(next(iter(server.registry._living._feeds)))
    assert loaded is not None
    records = {
        record.key: msgspec.json.decode(record.data, type=CorrectionRecord).replanned
        for record in loaded.journal
        if record.kind == "correction"
    }
    assert records == {"one": True, "three": False, "late": False}


async def test_who_asked_for_a_new_plan_is_known_after_a_crash(house: Open) -> None:
    async def body(port: Port) -> None:
        if not port.recovered:
            await correct(server, port, "one", replan=True)
            await correct(server, port, "two")
            accepted.set()
            await for_ever(port)
        await port.end([[c.text, c.asked_replan] for c in port.due_corrections()], return_corrections=True)

    accepted = asyncio.Event()
    server = await house(body)
    run = await server.start()
    await soon(accepted.wait())
    await server.crash()
    await server.open()
    assert (await server.log(run))[-1].payload.result == [["one", True], ["two", False]]
