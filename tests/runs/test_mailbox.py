"""Two lanes into one writer."""

import asyncio
from typing import Any

import pytest

from midstream.log import LogUnavailable
from midstream.runs.coalesce import Windows
from midstream.runs.contract import Limits, Stopping
from midstream.runs.inputs import Recovered, Said, Tick
from midstream.runs.mailbox import Mailbox
from midstream.testing import ManualClock

pytestmark = pytest.mark.asyncio


def box(clock: ManualClock | None = None, **limits: Any) -> Mailbox:
    clock, bounds = clock or ManualClock(), Limits(**limits)
    return Mailbox(limits=bounds, windows=Windows(limits=bounds, clock=clock), clock=clock)


def reply() -> Any:
    return asyncio.get_running_loop().create_future()


async def put(mailbox: Mailbox) -> None:
    """As the port does."""
    while not mailbox.put_output(Tick()):
        await mailbox.room()


def taken(mailbox: Mailbox, limit: int = 10) -> list[Any]:
    return [each.texts if isinstance(each, Said) else each.item for each in mailbox.take(limit)]


async def test_control_is_taken_first() -> None:
    mailbox = box(output_lane=2)
    assert mailbox.put_output(Recovered())
    mailbox.put_control(Tick())
    assert mailbox.due
    assert taken(mailbox, 1) == [Tick()]
    assert mailbox.due, "there is more"
    assert taken(mailbox, 1) == [Recovered()]
    assert mailbox.idle
    assert not mailbox.due


async def test_who_waits_is_wakened_once_something_is_due() -> None:
    clock = ManualClock()
    mailbox = box(clock, coalesce_ms=40)
    mailbox.gather(0.04)
    wakened = mailbox.wakened()
    assert mailbox.say("m", "a", None)
    assert not wakened.done()
    await clock.advance(0.04)
    assert wakened.done()
    assert taken(mailbox) == [["a"]]
    wakened = mailbox.wakened()
    wakened.cancel()
    mailbox.put_control(Tick())
    assert mailbox.due


async def test_each_delta_counts_in_the_lane() -> None:
    mailbox = box(output_lane=3)
    assert [mailbox.say("m", text, None) for text in "abcd"] == [True, True, True, False]
    assert not mailbox.put_output(Tick())
    mailbox.put_control(Tick())
    assert taken(mailbox, 1) == [Tick()]
    assert not mailbox.say("m", "d", None), "nothing of it was taken"
    assert taken(mailbox, 1) == [["a", "b", "c"]]
    assert mailbox.say("m", "d", None)
    assert taken(mailbox) == [["d"]]


async def test_what_is_left_for_the_next_beat_still_counts() -> None:
    mailbox = box(output_lane=4)
    for text in "abc":
        assert mailbox.say("m", text, None)
    assert mailbox.put_output(Tick())
    assert taken(mailbox, 1) == [["a", "b", "c"]]
    assert mailbox.due
    assert [mailbox.say("m", text, None) for text in "defg"] == [True, True, True, False]
    assert taken(mailbox) == [Tick(), ["d", "e", "f"]]


async def test_the_place_of_a_writer_that_was_cancelled_goes_to_the_next() -> None:
    mailbox = box(output_lane=1)
    await put(mailbox)
    first, second = (asyncio.ensure_future(put(mailbox)) for _ in range(2))
    await asyncio.sleep(0)
    mailbox.take(10)
    first.cancel()
    await asyncio.wait_for(second, 5)
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_room_is_waited_for_no_longer_than_it_may_be() -> None:
    clock = ManualClock()
    mailbox = box(clock, output_lane=1, emit_wait_s=10)
    await put(mailbox)
    patient, late, gone = (asyncio.ensure_future(wait()) for wait in (mailbox.room, *[mailbox.room_in_time] * 2))
    await clock.advance(9)
    gone.cancel()
    assert not late.done()
    in_time = asyncio.ensure_future(mailbox.room_in_time())
    await clock.advance(1.1)
    assert late.result() is False
    assert not patient.done()
    mailbox.take(10)
    await clock.advance(0)
    assert patient.done()
    await put(mailbox)
    mailbox.take(10)
    assert await in_time is True
    assert not clock._callbacks


async def test_what_was_let_in_stays_in_until_the_lane_moves() -> None:
    mailbox = box(output_lane=1)
    assert mailbox.say("m", "a", None)
    assert not mailbox.say("m", "b", None)
    mailbox.let_in()
    assert mailbox.say("m", "b", None)
    assert mailbox.say("m", "c", None)
    assert not mailbox.put_output(Tick()), "a fact waits"
    assert taken(mailbox) == [["a", "b", "c"]]
    assert mailbox.say("m", "d", None)
    assert not mailbox.say("m", "e", None)


@pytest.mark.parametrize("reason", [None, LogUnavailable("full")])
async def test_closing_answers_everybody(reason: Any) -> None:
    mailbox = box(output_lane=1)
    early, control, late = reply(), reply(), reply()
    mailbox.put_output(Tick(), reply=early)
    mailbox.put_control(Tick(), reply=control)
    writer = asyncio.ensure_future(put(mailbox))
    await asyncio.sleep(0)
    mailbox.close(reason)
    mailbox.close()
    mailbox.put_control(Tick(), reply=late)
    mailbox.force_output(Tick())
    kind = Stopping if reason is None else LogUnavailable
    for waiting in (early, control, late, writer, put(mailbox)):
        with pytest.raises(kind):
            await waiting
    with pytest.raises(kind):
        mailbox.say("m", "a", None)
    assert mailbox.idle
