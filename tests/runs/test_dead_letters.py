"""What was tried and given up is kept for a person to look at: which calls, how many, how long."""

import asyncio
from typing import Any

import pytest

from midstream.log import Store
from midstream.runs import Limits, Port
from midstream.runs.dead_letters import DeadLetters, Letter, letter_id, letter_writes
from midstream.runs.keys import namespace
from midstream.testing import ManualClock
from midstream_protocol.codec import iso_ms
from midstream_protocol.commands import RunCancel
from midstream_protocol.errors import NotFound
from midstream_protocol.events import ToolFailed
from tests.runs.conftest import Open
from tests.runs.house import House
from tests.runs.say import approval, call_record, for_ever, requested, started
from tests.runs.simple import ME

pytestmark = pytest.mark.asyncio

SPACE = namespace(ME.id)


def failed(call_id: str, code: str = "tool_error", outcome: Any = "failed") -> ToolFailed:
    return ToolFailed(tool_call_id=call_id, code=code, text="No.", outcome=outcome, retryable=False)


async def fails(port: Port) -> None:
    """Calls that end in each way there is."""
    endings = (
        ("tool_error", "failed"),
        ("timeout", "unknown"),
        ("invalid_args", "unknown"),
        ("cancelled", "unknown"),
        ("cancelled", "failed"),
    )
    for n, (code, outcome) in enumerate(endings):
        await port.record(started(port, f"t{n}"))
        await port.record(failed(f"t{n}", code, outcome))
    await port.record(started(port, "t9"))
    await port.record(started(port, "t9", attempt=2))
    await port.record(failed("t9"))
    if port.start.input == "wait":
        await port.ask(approval(port, call_id="t10", seconds=9999), journal=[call_record("t10")])
        await for_ever(port)
    await port.end("done")


async def letters(server: House, **options: Any) -> list[Letter]:
    asked = {"kind": None, "after": None, "limit": 100, **options}
    found, _ = await server.registry.dead_letters.page(SPACE, **asked)
    return found


async def test_calls_that_were_tried_and_given_up(house: Open) -> None:
    server = await house(fails)
    run = await server.start(thread_id="th")
    await server.log(run)
    found = {letter.tool_call_id: letter for letter in await letters(server)}
    assert {key: (each.code, each.outcome) for key, each in found.items()} == {
        "t0": ("tool_error", "failed"),
        "t1": ("timeout", "unknown"),
        "t9": ("tool_error", "failed"),
    }
    assert [found[key].attempts for key in ("t0", "t9")] == [1, 2]
    letter = found["t0"]
    assert (letter.kind, letter.run_id, letter.thread_id, letter.agent) == ("tool", run, "th", "a")
    assert (letter.what, letter.label, letter.text, letter.at) == ("srv_do", "Do", "No.", iso_ms(server.clock.now_ms()))


async def test_what_nobody_wanted_is_not_among_them(house: Open) -> None:
    async def asks(port: Port) -> None:
        await port.record(started(port, "t2"))
        await port.ask(approval(port, seconds=9999), journal=[call_record()])
        await for_ever(port)

    server = await house(asks)
    run = await server.start()
    await (await server.attach(run)).until("approval.required")
    await server.send(run, RunCancel())
    assert [event.type for event in await server.log(run)][-1] == "run.cancelled"
    assert await letters(server) == []


async def test_a_client_that_never_answered_is(house: Open) -> None:
    async def asks(port: Port) -> None:
        await port.ask(requested(port, seconds=60))
        await port.end("x")

    server = await house(asks)
    run = await server.start()
    await (await server.attach(run)).until("tool.requested")
    await server.clock.advance(61)
    await server.log(run)
    (letter,) = await letters(server)
    assert (letter.what, letter.code, letter.outcome, letter.attempts) == ("edit", "timeout", "unknown", 1)


async def test_a_run_that_failed_in_the_middle_of_a_call_leaves_one(house: Open) -> None:
    async def breaks(port: Port) -> None:
        await port.record(started(port))
        raise RuntimeError

    server = await house(breaks)
    await server.log(await server.start())
    (letter,) = await letters(server)
    assert (letter.code, letter.outcome) == ("run_failed", "unknown")


async def test_they_are_there_in_the_next_life_and_erased_with_their_run(house: Open) -> None:
    server = await house(fails)
    first, second = await server.start(), await server.start()
    for run in (first, second):
        await server.log(run)
    await server.crash()
    await server.open()
    assert len(await letters(server)) == 6
    await server.registry.delete(ME, first)
    assert {letter.run_id for letter in await letters(server)} == {second}
    assert len(await letters(server)) == 3


async def test_dismissed_one_by_one_or_all_of_a_kind(house: Open) -> None:
    server = await house(fails)
    await server.log(await server.start())
    dead = server.registry.dead_letters
    first, *rest = await letters(server)
    with pytest.raises(NotFound):
        await dead.dismiss(namespace("somebody else"), first.id)
    await dead.dismiss(SPACE, first.id)
    with pytest.raises(NotFound):
        await dead.dismiss(SPACE, first.id)
    assert await letters(server) == rest
    await dead.dismiss_all(SPACE, kind="webhook")
    assert await letters(server) == rest
    await dead.dismiss_all(SPACE, kind="tool")
    assert await letters(server) == []


# -- how many, and how long


def letter(clock: ManualClock, n: int, *, kind: str = "tool") -> Letter:
    now = clock.now_ms()
    return Letter(
        id=letter_id(now, "run", str(n)),
        kind=kind,
        run_id="run",
        thread_id="th",
        at=iso_ms(now),
        what=str(n),
        code="c",
        text="t",
        attempts=1,
    )


async def put(store: Store, space: str, each: Letter) -> None:
    for write in letter_writes(space, [each]):
        assert write.data is not None
        await store.records.put(write.kind, write.id, write.data)


async def whats(dead: DeadLetters, space: str = "s", **options: Any) -> list[str]:
    found, _ = await dead.page(space, **{"kind": None, "after": None, "limit": 100, **options})
    return [each.what for each in found]


async def test_the_oldest_are_dropped(store: Store, clock: ManualClock) -> None:
    await store.open()
    dead = DeadLetters(records=store.records, limits=Limits(max_dead_letters=3), clock=clock)
    for n in range(5):
        await put(store, "s", letter(clock, n))
        await clock.advance(1)
    await put(store, "other", letter(clock, 9))
    await dead.sweep()
    assert await whats(dead) == ["4", "3", "2"]
    assert await whats(dead, "other") == ["9"]
    await put(store, "s", letter(clock, 5))
    await dead.sweep()
    assert await whats(dead) == ["5", "4", "3"]
    await store.aclose()


async def test_the_old_are_dropped(store: Store, clock: ManualClock) -> None:
    await store.open()
    dead = DeadLetters(records=store.records, limits=Limits(dead_letter_ttl_s=10), clock=clock)
    await put(store, "s", letter(clock, 1))
    await clock.advance(6)
    await put(store, "s", letter(clock, 2))
    await dead.sweep()
    await clock.advance(6)
    # Not shown although nobody has looked yet.
    assert await whats(dead) == ["2"]
    assert len(await store.records.list("dead.s")) == 2
    await dead.sweep()
    assert len(await store.records.list("dead.s")) == 1
    await clock.advance(6)
    await dead.sweep()
    assert await store.records.list("dead.s") == ()
    assert await store.records.list("dead") == ()
    await put(store, "s", letter(clock, 3))
    await dead.sweep()
    assert await whats(dead) == ["3"]
    await store.aclose()


async def test_for_ever_when_asked_to(store: Store, clock: ManualClock) -> None:
    await store.open()
    dead = DeadLetters(records=store.records, limits=Limits(dead_letter_ttl_s=0), clock=clock)
    await put(store, "s", letter(clock, 1))
    await clock.advance(400 * 86_400)
    await dead.sweep()
    assert await whats(dead) == ["1"]
    await store.aclose()


async def test_a_server_looks_by_itself(house: Open) -> None:
    server = await house(fails, limits=Limits(max_dead_letters=2, retention_interval_s=5))
    await server.log(await server.start())
    assert len(await letters(server)) == 3
    await server.clock.advance(5)
    for _ in range(1000):
        if len(await letters(server)) == 2:
            return
        await asyncio.sleep(0.001)
    pytest.fail("nothing was dropped")


async def test_pages_of_a_kind(store: Store, clock: ManualClock) -> None:
    await store.open()
    dead = DeadLetters(records=store.records, limits=Limits(), clock=clock)
    for n in range(10):
        await put(store, "s", letter(clock, n, kind="webhook" if n % 2 else "tool"))
        await clock.advance(1)
    seen: list[str] = []
    after: str | None = None
    while True:
        found, after = await dead.page("s", kind="tool", after=after, limit=2)
        seen += [each.what for each in found]
        if after is None:
            break
    assert seen == ["8", "6", "4", "2", "0"]
    assert await whats(dead, kind="webhook") == ["9", "7", "5", "3", "1"]
    await store.aclose()
