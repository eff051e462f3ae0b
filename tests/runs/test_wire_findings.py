"""What independent clients found at the wire and no test of a part had asked."""

import asyncio

import pytest
from msgspec import structs

from midstream.runs import Port
from midstream_protocol.commands import (
    ApprovalRespond,
    Command,
    CorrectionRevoke,
    InputRespond,
    RunCancel,
    RunCorrect,
    RunStart,
    TextBlock,
    ToolResult,
)
from midstream_protocol.view import fold_all
from tests.runs.conftest import Open
from tests.runs.say import (
    approval,
    call_record,
    completed,
    delta,
    for_ever,
    message,
    question,
    requested,
    said,
    started,
)
from tests.runs.simple import ME

pytestmark = pytest.mark.asyncio


async def test_an_answer_of_the_wrong_kind_is_not_found_also_when_the_question_was_answered(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.ask(approval(port), journal=[call_record()])
        await port.record(started(port))
        await port.record(completed())
        await port.ask(question(port))
        await port.end("ok")

    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("approval.required")
    as_input = InputRespond(input_id="a1", answer="x")
    assert (await server.send(run, as_input)).code == "not_found"
    assert (await server.send(run, ApprovalRespond(approval_id="a1", decision="approve"))).status == "accepted"
    asked = (await reader.until("input.required")).payload.input_id
    assert (await server.send(run, as_input)).code == "not_found"
    as_approval = ApprovalRespond(approval_id=asked, decision="approve")
    assert (await server.send(run, as_approval)).code == "not_found"
    assert (await server.send(run, InputRespond(input_id=asked, answer="x"))).status == "accepted"
    await reader.all()
    assert (await server.send(run, as_approval)).code == "not_found"
    assert (await server.send(run, as_input)).code == "not_found"


async def test_an_input_that_a_cancel_resolved_was_cancelled_and_did_not_expire(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.ask(question(port))

    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    asked = (await reader.until("input.required")).payload.input_id
    await server.send(run, RunCancel())
    await reader.all()
    late = await server.send(run, InputRespond(input_id=asked, answer="x"))
    assert late.code == "already_resolved"
    assert late.resolution is not None
    assert late.resolution["decision"] == "cancelled"


async def test_a_call_that_is_over_says_so_with_its_place_also_after_the_end(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.record(started(port))
        await port.record(completed())
        gone_on.set()
        await asyncio.Event().wait()

    gone_on = asyncio.Event()
    server = await house(body)
    run = await server.start()
    await gone_on.wait()
    over = await server.send(run, RunCancel(tool_call_id="t1"))
    await server.send(run, RunCancel())
    events = await server.log(run)
    after = await server.send(run, RunCancel(tool_call_id="t1"))
    at = next(event.seq for event in events if event.type == "tool.completed")
    for receipt in (over, after):
        assert (receipt.code, receipt.resolution) == (
            "already_resolved",
            {"decision": "completed", "by": "tool", "at_seq": at},
        )


async def test_a_refusal_after_the_end_is_the_same_for_whoever_sends_it_again(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.ask(requested(port), journal=[call_record()])
        await port.end("ok")

    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    call = (await reader.until("tool.requested")).payload
    result = ToolResult(tool_call_id=call.tool_call_id, ok=True, result=1)
    assert (await server.send(run, result, client=call.client_id)).status == "accepted"
    await reader.all()
    late = await server.send(run, result, command_id="late", client=call.client_id)
    assert late.code == "already_resolved"
    # Asked for the first time it would be `forbidden` to this one.
    assert await server.send(run, result, command_id="late", client="another") == late
    other = ToolResult(tool_call_id=call.tool_call_id, ok=True, result=2)
    assert (await server.send(run, other, command_id="late", client=call.client_id)).code == "conflict"
    started_instead = RunCorrect(text="again", if_ended="start")
    assert (await server.send(run, started_instead, command_id="late")).code == "conflict"
    await server.shut()
    await server.open()
    assert await server.send(run, result, command_id="late", client="third") == late


async def test_the_same_late_command_twice_at_once_gets_one_receipt(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.end("ok")

    server = await house(body)
    run = await server.start()
    await server.log(run)
    receipts = await asyncio.gather(*(server.send(run, RunCancel(), command_id="late") for _ in range(5)))
    assert {receipt.code for receipt in receipts} == {"run_ended"}
    # What is not remembered by the protocol's table is not remembered here either.
    assert (await server.send(run, CorrectionRevoke(correction_id="x"), command_id="free")).code == "not_found"
    assert (await server.send(run, RunCancel(), command_id="free")).code == "run_ended"


async def test_a_merged_attach_tells_the_same_in_fewer_events_and_live_as_it_comes(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.emit(message())
        for n in range(5):
            await port.record(delta(str(n)))
        await go.wait()
        for n in range(5, 8):
            await port.record(delta(str(n)))
        await port.record(said("01234567"))
        await port.end("ok")

    go = asyncio.Event()
    server = await house(body)
    run = await server.start()
    whole = await server.attach(run)
    while len([event for event in whole.events if event.type == "message.delta"]) < 5:
        await whole.until("message.delta")
    short = await server.attach(run, replay="merged", since_seq=4)
    await short.pull()
    assert [(event.from_, event.payload.text) for event in short.events] == [(5, "1234")]
    go.set()
    events = await whole.all()
    await short.all()
    assert short.lines[1:] == whole.lines[short.events[0].seq :]
    assert fold_all(short.events, fold_all(events[:4])) == fold_all(events)
    assert [event.from_ for event in events] == [None] * len(events)


async def test_a_start_that_could_not_correct_leaves_its_id_free(house: Open) -> None:
    server = await house(for_ever)
    first = await server.start(thread_id="th")
    blocks = RunStart(input=[TextBlock(text="look")], thread_id="th", if_busy="correct")
    refused = await server.registry.start(
        ME, Command(type=RunStart.TYPE, command_id="c1", payload=blocks), client_id="north"
    )
    assert refused.code == "conflict"
    queued = structs.replace(blocks, if_busy="queue")
    receipt = await server.registry.start(
        ME, Command(type=RunStart.TYPE, command_id="c1", payload=queued), client_id="north"
    )
    assert (receipt.status, receipt.as_) == ("accepted", "queued")
    assert receipt.run_id != first
