"""Two lanes into one writer."""

import asyncio
from typing import Any

import pytest

from midstream.log import LogUnavailable
from midstream.runs.contract import Stopping
from midstream.runs.inputs import Recovered, Tick
from midstream.runs.mailbox import Mailbox

pytestmark = pytest.mark.asyncio


def reply() -> Any:
    return asyncio.get_running_loop().create_future()


async def test_control_is_taken_first() -> None:
    mailbox = Mailbox(output_lane=2)
    await mailbox.put_output(Recovered())
    mailbox.put_control(Tick())
    assert [posted.item for posted in await mailbox.take(1)] == [Tick()]
    assert [posted.item for posted in await mailbox.take(1)] == [Recovered()]
    assert mailbox.idle


async def test_the_place_of_a_writer_that_was_cancelled_goes_to_the_next() -> None:
    mailbox = Mailbox(output_lane=1)
    await mailbox.put_output(Tick())
    first, second = (asyncio.ensure_future(mailbox.put_output(Tick())) for _ in range(2))
    await asyncio.sleep(0)
    await mailbox.take(10)
    first.cancel()
    await asyncio.wait_for(second, 5)
    with pytest.raises(asyncio.CancelledError):
        await first


@pytest.mark.parametrize("reason", [None, LogUnavailable("full")])
async def test_closing_answers_everybody(reason: Any) -> None:
    mailbox = Mailbox(output_lane=1)
    early, control, late = reply(), reply(), reply()
    await mailbox.put_output(Tick(), reply=early)
    mailbox.put_control(Tick(), reply=control)
    writer = asyncio.ensure_future(mailbox.put_output(Tick()))
    await asyncio.sleep(0)
    mailbox.close(reason)
    mailbox.close()
    mailbox.put_control(Tick(), reply=late)
    mailbox.force_output(Tick())
    kind = Stopping if reason is None else LogUnavailable
    for waiting in (early, control, late, writer, mailbox.put_output(Tick())):
        with pytest.raises(kind):
            await waiting
    assert mailbox.idle
