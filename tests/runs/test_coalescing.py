"""Text deltas are gathered: the first at once, then in windows, joined, and never across anything else."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midstream.log import LogUnavailable, MemoryStore
from midstream.runs import Limits, Port, Stopping
from midstream.testing import ManualClock
from midstream_protocol.commands import RunCancel, RunCorrect
from midstream_protocol.events import Event, MessageDelta, Notice
from tests.runs.house import House, types
from tests.runs.say import delta, message, said, step

pytestmark = pytest.mark.asyncio

NOTICE = Notice(level="info", code="x", text="")


class Talk:
    """A run whose program says what the test says, on a clock that stands still."""

    def __init__(self, server: House, clock: ManualClock, run: str, port: Port) -> None:
        self.server = server
        self.clock = clock
        self.run = run
        self.port = port

    async def say(self, *texts: str, message_id: str = "m1", step_id: str | None = None) -> None:
        for text in texts:
            await self.port.emit(delta(text, message_id), step_id=step_id)
        await self.clock.advance(0)

    async def events(self) -> list[Event]:
        await self.clock.advance(0)
        return (await self.server.log(self.run, ended=False))[3:]

    async def texts(self) -> list[str]:
        return [event.payload.text for event in await self.events() if event.type == "message.delta"]

    @property
    def quiet(self) -> bool:
        return self.server.registry._living._windows.idle


Begin = Callable[..., Awaitable[Talk]]


async def begun(**limits: Any) -> Talk:
    """A run that has begun message m1."""
    ports: list[Port] = []

    async def body(port: Port) -> None:
        await port.emit(message())
        ports.append(port)
        await asyncio.Event().wait()

    clock = ManualClock()
    server = await House(MemoryStore(clock=clock), body, clock=clock, limits=Limits(**limits)).open()
    run = await server.start()
    await clock.advance(0)
    return Talk(server, clock, run, ports[0])


@pytest_asyncio.fixture
async def begin() -> Any:
    opened: list[Talk] = []

    async def make(**limits: Any) -> Talk:
        opened.append(await begun(**limits))
        return opened[-1]

    yield make
    for talk in opened:
        await talk.server.aclose()


async def test_the_first_goes_at_once_and_the_others_together_at_the_end_of_their_window(begin: Begin) -> None:
    talk = await begin()
    await talk.say("a")
    assert await talk.texts() == ["a"]
    for text in ("b", "c", "d"):
        await talk.clock.advance(0.01)
        await talk.say(text)
    assert await talk.texts() == ["a"]
    await talk.clock.advance(0.01)
    assert await talk.texts() == ["a", "bcd"]
    await talk.say("e")
    assert await talk.texts() == ["a", "bcd"], "the next window has begun"
    await talk.clock.advance(0.04)
    assert await talk.texts() == ["a", "bcd", "e"]
    await talk.clock.advance(0.04)
    await talk.say("f")
    assert await talk.texts() == ["a", "bcd", "e", "f"], "an empty window closes"
    assert talk.quiet


async def test_no_window_is_longer_than_it_may_be(begin: Begin) -> None:
    talk = await begin(coalesce_ms=40)
    for n in range(60):
        await talk.say(f"{n} ")
        await talk.clock.advance(0.0037)
    events = [event for event in await talk.events() if event.type == "message.delta"]
    assert 5 <= len(events) <= 60 * 3.7 / 35 + 2
    assert "".join(event.payload.text for event in events).split() == [
        str(n) for n in range(len("".join(await talk.texts()).split()))
    ]


OTHERS: dict[str, Callable[[Talk], Awaitable[Any]]] = {
    "shown": lambda talk: talk.port.emit(NOTICE),
    "a fact": lambda talk: talk.port.record(step()),
    "posted": lambda talk: asyncio.to_thread(lambda: None) if talk.port.post(NOTICE) is None else asyncio.sleep(0),
    "a command": lambda talk: talk.server.send(talk.run, RunCorrect(text="x")),
}


@pytest.mark.parametrize("what", OTHERS)
async def test_anything_else_takes_along_what_waits_and_ends_the_window(begin: Begin, what: str) -> None:
    talk = await begin()
    await talk.say("a")
    await talk.say("b", "c")
    await OTHERS[what](talk)
    await talk.clock.advance(0)
    events = await talk.events()
    rest = [event.type for event in events]
    assert [event.payload.text for event in events if isinstance(event.payload, MessageDelta)] == ["a", "bc"]
    if what != "a command":
        # Control comes before output.
        assert rest[-1] != "message.delta"
        await talk.say("d")
        assert (await talk.texts())[-1] == "d", "the first after something else"
    assert talk.quiet


async def test_order_is_kept_exactly(begin: Begin) -> None:
    talk = await begin()
    port = talk.port
    await port.emit(message("m2"))
    await port.record(step())
    await talk.say("a")
    await talk.say("b")
    await talk.say("1", "2", message_id="m2")
    await talk.say("c", "d")
    await talk.say("e", step_id="s1")
    await talk.clock.advance(1)
    found = [
        (e.payload.message_id, e.payload.text, e.step_id) for e in await talk.events() if e.type == "message.delta"
    ]
    assert found == [
        ("m1", "a", None),
        ("m1", "b", None),
        ("m2", "12", None),
        ("m1", "cd", None),
        ("m1", "e", "s1"),
    ]


@pytest.mark.parametrize("how", ["end", "fail", "cancel"])
async def test_the_end_waits_for_no_window(how: str) -> None:
    gates = asyncio.Event(), asyncio.Event()

    async def body(port: Port) -> None:
        await port.emit(message())
        await port.emit(delta("a"))
        await gates[0].wait()
        await port.emit(delta("b"))
        await gates[1].wait()
        if how == "fail":
            raise ValueError
        if how == "cancel":
            await asyncio.Event().wait()
        await port.record(said("ab"))
        await port.end(None)

    clock = ManualClock()
    server = await House(MemoryStore(clock=clock), body, clock=clock).open()
    run = await server.start()
    await clock.advance(0)
    gates[0].set()
    await clock.advance(0)
    gates[1].set()
    if how == "cancel":
        await server.send(run, RunCancel())
    await clock.advance(0)
    events = await server.log(run)
    assert [e.payload.text for e in events if e.type == "message.delta"] == ["a", "b"]
    assert types(events)[-2:] == [
        "message.completed",
        {"end": "run.completed", "fail": "run.failed"}.get(how, "run.cancelled"),
    ]
    assert events[-1].ts == events[0].ts, "no time has passed"
    await server.registry._living.settled(f"{next(iter(server.registry._living.actors), '')}")
    assert server.registry._living._windows.idle
    await server.aclose()


@pytest.mark.parametrize("way", ["handed over", "its log fails"])
async def test_an_actor_that_goes_leaves_no_timer(begin: Begin, way: str) -> None:
    talk = await begin()
    await talk.say("a")
    await talk.say("b")
    assert not talk.quiet
    if way == "handed over":
        await talk.server.registry.drain(0)
        assert await talk.texts() == ["a", "b"], "what was said is written"
    else:
        talk.server.held.broken = LogUnavailable("disk full")
        await talk.clock.advance(0.05)
    assert talk.quiet


async def test_much_text_goes_without_waiting_and_not_in_one_event(begin: Begin) -> None:
    talk = await begin(coalesce_bytes=100)
    await talk.say("a")
    await talk.say("é" * 30)
    assert await talk.texts() == ["a"]
    await talk.say("é" * 30)
    assert await talk.texts() == ["a", "é" * 30, "é" * 30]
    await talk.clock.advance(0.04)
    await talk.say("b" * 500)
    assert (await talk.texts())[-1] == "b" * 500, "one delta is not cut"
    await talk.say("c" * 40, "d" * 40)
    await talk.clock.advance(0.05)
    assert (await talk.texts())[-1] == "c" * 40 + "d" * 40


async def test_a_full_lane_does_not_wait_for_the_window(begin: Begin) -> None:
    talk = await begin(output_lane=8)
    await talk.say("a")
    for _ in range(40):
        await talk.say("x")
    assert "".join(await talk.texts()) == "a" + "x" * 40


async def test_without_coalescing_each_is_an_event_and_a_fast_run_writes_several_at_once(begin: Begin) -> None:
    talk = await begin(coalesce_ms=0, gather_ms=2)
    before = talk.server.held.appends
    await talk.say("a", "b")
    assert await talk.texts() == ["a", "b"], "also in one beat"
    assert talk.server.held.appends == before + 1
    await talk.say("c")
    await talk.say("d")
    assert await talk.texts() == ["a", "b"], "it is fast: it gathers"
    await talk.clock.advance(0.002)
    assert await talk.texts() == ["a", "b", "c", "d"]
    assert talk.server.held.appends == before + 2
    for text in "efg":
        await talk.clock.advance(0.02)
        await talk.say(text)
        assert (await talk.texts())[-1] == text, "a slow one never waits"
    assert talk.quiet


async def test_nothing_is_gathered_where_all_is_switched_off(begin: Begin) -> None:
    talk = await begin(coalesce_ms=0, gather_ms=0)
    for text in "abcdef":
        await talk.say(text)
        assert (await talk.texts())[-1] == text


async def test_a_delta_that_is_given_up_while_it_waits_was_not_said(begin: Begin) -> None:
    talk = await begin(output_lane=2)
    talk.server.held.hold()
    await talk.say("a")
    await talk.say("b", "c")
    given_up, next_one = (asyncio.ensure_future(talk.port.emit(delta(text))) for text in ("x", "d"))
    await talk.clock.advance(0)
    assert not given_up.done()
    given_up.cancel()
    talk.server.held.release()
    await next_one
    await talk.clock.advance(0.1)
    assert given_up.cancelled()
    assert "".join(await talk.texts()) == "abcd"


async def test_nobody_waits_at_the_lane_of_an_actor_that_is_gone(begin: Begin) -> None:
    talk = await begin(output_lane=2)
    talk.server.held.hold()
    await talk.say("a")
    await talk.say("b", "c")
    waiting = asyncio.ensure_future(talk.port.emit(delta("d")))
    await talk.clock.advance(0)
    talk.server.held.broken = LogUnavailable("disk full")
    talk.server.held.release()
    for late in (waiting, talk.port.emit(delta("e"))):
        with pytest.raises(Stopping):
            await late
    assert talk.quiet


_SAID = st.tuples(st.sampled_from(["m1", "m2"]), st.sampled_from([None, "s1"]), st.text(max_size=4))
_OPS = st.one_of(
    _SAID,
    st.sampled_from([1, 5, 20, 50]),
    st.sampled_from(["notice", "record", "command"]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ops=st.lists(_OPS, max_size=40), coalesce_ms=st.sampled_from([0, 7, 40]), size=st.sampled_from([16, 8192]))
async def test_what_is_shown_is_what_was_said(ops: list[Any], coalesce_ms: int, size: int) -> None:
    talk = await begun(coalesce_ms=coalesce_ms, coalesce_bytes=size, output_lane=16)
    await talk.port.emit(message("m2"))
    await talk.port.record(step())
    start = len(await talk.events())
    expected: list[Any] = []
    for n, op in enumerate(ops):
        if isinstance(op, tuple):
            message_id, step_id, text = op
            await talk.port.emit(MessageDelta(message_id=message_id, text=text), step_id=step_id)
            expected.append(op)
        elif isinstance(op, int):
            await talk.clock.advance(op / 1000)
        elif op == "notice":
            await talk.port.emit(Notice(level="info", code=str(n), text=""))
            expected.append(str(n))
        elif op == "record":
            await talk.port.record(Notice(level="info", code=str(n), text=""))
            expected.append(str(n))
        else:
            await talk.server.send(talk.run, RunCorrect(text="x"))
    await talk.clock.advance(0.05)
    found: list[Any] = []
    for event in (await talk.events())[start:]:
        p = event.payload
        if isinstance(p, MessageDelta):
            found.append((p.message_id, event.step_id, p.text))
        elif isinstance(p, Notice):
            found.append(p.code)
    if coalesce_ms == 0:
        assert found == expected
    assert _joined(found) == _joined(expected)
    await talk.server.registry.drain(0)
    assert talk.quiet
    await talk.server.aclose()


def _joined(items: list[Any]) -> list[Any]:
    """Adjacent deltas of one message and step as one."""
    out: list[Any] = []
    for item in items:
        if isinstance(item, tuple) and out and isinstance(out[-1], tuple) and out[-1][:2] == item[:2]:
            out[-1] = (*item[:2], out[-1][2] + item[2])
        else:
            out.append(item)
    return out
