"""A run forwarded into a chat: how often, what of it, and what a chat that refuses does to it. The clock is the test's."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from midstream.log import MemoryStore
from midstream.outbound import ChannelError, ChannelGone, Pace, RetryAfter, forward
from midstream.runs import Limits, Port, Registry
from midstream.tasks import spawn, stop
from midstream.testing import ManualClock
from midstream_protocol import events as ev
from midstream_protocol.errors import NotFound
from midstream_protocol.view import View
from tests.runs.simple import ME, OneAgent, start

pytestmark = pytest.mark.asyncio


class Talk:
    """A program that says what the test says, word by word."""

    def __init__(self) -> None:
        self.words: asyncio.Queue[str | None] = asyncio.Queue()

    async def __call__(self, port: Port) -> None:
        await port.emit(ev.MessageStarted(message_id="m", role="assistant", agent="a"))
        text = ""
        while (word := await self.words.get()) is not None:
            text += word
            await port.emit(ev.MessageDelta(message_id="m", text=word))
        await port.record(ev.MessageCompleted(message_id="m", role="assistant", text=text, state="complete"))
        await port.end(text)


class Chat:
    """A chat in memory. `refuse` holds what the next calls raise; each call is (when, what, text)."""

    max_chars = 1000

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.calls: list[tuple[float, str, str]] = []
        self.shown: dict[str, str] = {}
        self.refuse: list[Exception] = []

    async def open(self, text: str) -> str:
        handle = f"msg_{len(self.shown)}"
        self._called("open", handle, text)
        return handle

    async def edit(self, handle: str, text: str) -> None:
        self._called(f"edit {handle}", handle, text)

    def _called(self, what: str, handle: str, text: str) -> None:
        self.calls.append((self.clock.monotonic(), what, text))
        if self.refuse:
            raise self.refuse.pop(0)
        self.shown[handle] = text

    @property
    def times(self) -> list[float]:
        return [at for at, _, _ in self.calls]

    @property
    def last(self) -> str:
        return self.calls[-1][2]


class House:
    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.talk = Talk()
        self.registry = Registry(
            store=MemoryStore(clock=clock), agents=OneAgent(self.talk), limits=Limits(coalesce_ms=0), clock=clock
        )
        self.forwards: list[asyncio.Task[str]] = []

    async def begin(self) -> str:
        receipt = await self.registry.start(ME, start(), client_id=None)
        assert receipt.run_id is not None
        return receipt.run_id

    def forward(self, run_id: str, chat: Any, **options: Any) -> "asyncio.Task[str]":
        options = {"clock": self.clock, "fraction": lambda: 0.5, **options}
        task = spawn(
            forward(self.registry, run_id, chat, principal=ME, **options), name="forward", expected=(Exception,)
        )
        self.forwards.append(task)
        return task

    async def say(self, *words: str | None) -> None:
        for word in words:
            self.talk.words.put_nowait(word)
        await self.clock.advance(0)


@asynccontextmanager
async def opened(clock: ManualClock) -> AsyncIterator[House]:
    house = House(clock)
    await house.registry.open()
    try:
        yield house
    finally:
        await stop(*house.forwards)
        await house.registry.drain(0)
        await house.registry.aclose()


async def until(clock: ManualClock, true: Callable[[], bool], *, step: float = 0.25, most: float = 20_000) -> None:
    end = clock.monotonic() + most
    while not true():
        assert clock.monotonic() < end, "it never happens"
        await clock.advance(step)


async def test_it_is_shown_at_once_then_once_a_second_and_the_last_state_always(clock: ManualClock) -> None:
    chat = Chat(clock)
    async with opened(clock) as house:
        task = house.forward(await house.begin(), chat)
        await until(clock, lambda: bool(chat.calls), step=0)
        for n in range(100):
            await house.say(f"{n} ")
            await clock.advance(0.05)
        await house.say(None)
        await until(clock, task.done)
        assert [what for _, what, _ in chat.calls][:2] == ["open", "edit msg_0"]
        gaps = [b - a for a, b in zip(chat.times, chat.times[1:], strict=False)]
        assert min(gaps) >= 1.0
        # 100 words in 5 seconds: hardly more than an edit each.
        assert 5 <= len(chat.calls) <= 8
        assert chat.last == "Done\n\n" + "".join(f"{n} " for n in range(100))
        assert task.result() == "msg_0"


async def test_what_changes_nothing_is_not_sent(clock: ManualClock) -> None:
    chat = Chat(clock)
    async with opened(clock) as house:
        house.forward(await house.begin(), chat, render=lambda view, _: view.status)
        for n in range(20):
            await house.say(f"{n} ")
            await clock.advance(0.5)
        assert [text for _, _, text in chat.calls] == ["running"]
        await house.say(None)
        await until(clock, house.forwards[0].done)
        assert [text for _, _, text in chat.calls] == ["running", "completed"]


async def test_a_quiet_run_is_not_looked_at(clock: ManualClock) -> None:
    looks: list[str] = []

    def render(view: View, _: int) -> str:
        looks.append(view.status)
        return view.status

    async with opened(clock) as house:
        house.forward(await house.begin(), Chat(clock), render=render)
        await clock.advance(1)
        before = len(looks)
        await clock.advance(1000)
        assert len(looks) <= before + 1


async def test_retry_after_is_waited_for_and_then_the_newest_state_goes(clock: ManualClock) -> None:
    chat = Chat(clock)
    async with opened(clock) as house:
        task = house.forward(await house.begin(), chat)
        await until(clock, lambda: bool(chat.calls), step=0)
        chat.refuse = [RetryAfter(30)]
        await house.say("one ")
        await until(clock, lambda: len(chat.calls) == 2)
        refused_at = clock.monotonic()
        await house.say("two ", "three ", None)
        await clock.advance(29)
        assert len(chat.calls) == 2
        await until(clock, task.done)
        assert chat.times[2] >= refused_at + 29.5
        assert chat.last == "Done\n\none two three "


@pytest.mark.parametrize("error", [ChannelError("later"), OSError("no network"), TimeoutError()])
async def test_trouble_that_passes_is_tried_again_after_growing_waits(clock: ManualClock, error: Exception) -> None:
    chat = Chat(clock)
    chat.refuse = [error] * 4
    async with opened(clock) as house:
        task = house.forward(await house.begin(), chat)
        await house.say("word", None)
        await until(clock, task.done)
        gaps = [b - a for a, b in zip(chat.times[:5], chat.times[1:5], strict=False)]
        assert gaps == sorted(gaps)
        assert gaps[-1] >= 4.0
        assert chat.last == "Done\n\nword"
        assert list(chat.shown) == ["msg_0"]


async def test_a_chat_that_takes_nothing_for_long_is_given_up(clock: ManualClock) -> None:
    chat = Chat(clock)
    chat.refuse = [ChannelError(f"no {n}") for n in range(1000)]
    async with opened(clock) as house:
        task = house.forward(await house.begin(), chat, give_up_after_s=100)
        await until(clock, task.done, step=5)
        assert 100 <= clock.monotonic() <= 500
        with pytest.raises(ChannelError, match="no"):
            task.result()


@pytest.mark.parametrize("error", [ChannelGone("deleted"), ZeroDivisionError()])
async def test_what_does_not_pass_ends_it_at_once(clock: ManualClock, error: Exception) -> None:
    chat = Chat(clock)
    chat.refuse = [error]
    async with opened(clock) as house:
        task = house.forward(await house.begin(), chat)
        await until(clock, task.done, step=0)
        assert task.exception() is error


async def test_a_run_that_is_not_there_is_said_so(clock: ManualClock) -> None:
    async with opened(clock) as house:
        task = house.forward("run_nowhere", Chat(clock))
        await until(clock, task.done, step=0)
        assert isinstance(task.exception(), NotFound)


async def test_asked_again_with_its_handle_it_goes_on_with_the_same_message(clock: ManualClock) -> None:
    chat = Chat(clock)
    kept: list[str] = []

    async def keep(handle: str) -> None:
        kept.append(handle)

    async with opened(clock) as house:
        run_id = await house.begin()
        first = house.forward(run_id, chat, opened=keep)
        await until(clock, lambda: bool(chat.shown), step=0)
        await stop(first)
        await house.say("said meanwhile", None)
        again = house.forward(run_id, chat, handle=kept[0], opened=keep)
        await until(clock, again.done)
        assert kept == ["msg_0"]
        assert chat.shown == {"msg_0": "Done\n\nsaid meanwhile"}


async def test_a_run_that_ended_long_ago_is_shown_in_one_call(clock: ManualClock) -> None:
    chat = Chat(clock)
    async with opened(clock) as house:
        run_id = await house.begin()
        await house.say("all of it", None)
        await until(clock, lambda: house.registry.live_runs == 0)
        task = house.forward(run_id, chat)
        await until(clock, task.done, step=0)
        assert [(what, text) for _, what, text in chat.calls] == [("open", "Done\n\nall of it")]


async def test_forwarders_into_one_chat_share_its_pace_in_turn(clock: ManualClock) -> None:
    chat = Chat(clock)
    pace = Pace(1.0, clock=clock)
    async with opened(clock) as house:
        run_id = await house.begin()
        tasks = [house.forward(run_id, chat, pace=pace) for _ in range(3)]
        for n in range(40):
            await house.say(f"{n} ")
            await clock.advance(0.25)
        await house.say(None)
        await until(clock, lambda: all(task.done() for task in tasks))
        gaps = [b - a for a, b in zip(chat.times, chat.times[1:], strict=False)]
        assert min(gaps) >= 1.0
        edits = [what for _, what, _ in chat.calls if what.startswith("edit")]
        assert edits[:6] == ["edit msg_0", "edit msg_1", "edit msg_2"] * 2
        assert len(set(chat.shown.values())) == 1


async def test_a_slow_chat_does_not_hold_up_the_run(clock: ManualClock) -> None:
    class Slow(Chat):
        async def edit(self, handle: str, text: str) -> None:
            await asyncio.Event().wait()

    chat = Slow(clock)
    async with opened(clock) as house:
        run_id = await house.begin()
        house.forward(run_id, chat)
        await until(clock, lambda: bool(chat.calls), step=0)
        await house.say(*["word "] * 3000, None)
        await until(clock, lambda: house.registry.live_runs == 0)
        assert (await house.registry.view(ME, run_id)).status == "completed"


async def test_a_reader_left_far_behind_goes_on_from_the_newest_state(clock: ManualClock) -> None:
    chat = Chat(clock)
    async with opened(clock) as house:
        task = house.forward(await house.begin(), chat)
        await until(clock, lambda: bool(chat.calls), step=0)
        chat.refuse = [RetryAfter(60)]
        await house.say("x")
        await until(clock, lambda: len(chat.calls) == 2)
        for _ in range(30):
            await house.say(*["y"] * 1000)
        await house.say(None)
        await until(clock, task.done)
        assert chat.last.startswith("Done\n\nxyyy")
