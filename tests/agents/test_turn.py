"""One call of a model: tried again, sent to the next model, made with less, and shown as it is to be shown."""

import asyncio

import msgspec
import pytest

from midstream.agents.conversation import Call, Text, decode_message
from midstream.agents.definition import AgentLimits
from midstream.agents.limiter import Limiter
from midstream.agents.providers.contract import (
    BadModelRequest,
    CallOpened,
    Cited,
    ContextTooLong,
    Finished,
    ModelDenied,
    ModelFailed,
    ModelOverloaded,
    ModelRateLimited,
    ModelStalled,
    TextDelta,
)
from midstream.agents.records import TurnRecord
from midstream.agents.recovery import BACKOFF_S
from midstream.agents.speech import SpeechStyle
from midstream.agents.turn import WINDOW_FULL
from midstream.runs.contract import RunFailure
from midstream.telemetry import exposed
from midstream.testing import ManualClock
from tests.agents.driven import SPENT, Says, Talk, driving, opened, said
from tests.agents.kit import eventually

pytestmark = pytest.mark.asyncio

GONE = [ModelDenied("no key")]
BUSY = [ModelOverloaded("busy")]


def recoveries(run) -> list[tuple[str, int, int]]:
    return [(p.kind, p.attempt, p.max_attempts) for p in run.of_type("recovery.started")]


# -- the next model


@pytest.mark.parametrize("error", [ModelDenied("no"), BadModelRequest("no such model")])
async def test_a_model_that_will_never_answer_is_left_at_once_and_for_good(error):
    model = Says(first=[[error]], second=[said("Yes.")])
    talk = Talk(model, "first", "second", turns=2)
    async with driving(talk) as run:
        assert await run.result() == "Yes."
        assert [request.model for request in model.requests] == ["first", "second", "second"]
        assert recoveries(run) == [("model_error", 2, 6)]
        (notice,) = run.of_type("notice")
        assert (notice.level, notice.code, notice.text) == (
            "warning",
            "model_fallback",
            "first cannot be had, second answers.",
        )


async def test_an_error_that_persists_goes_to_the_next_model_after_its_tries():
    model = Says(first=[BUSY], second=[said("Yes.")])
    async with driving(Talk(model, "first", "second")) as run:
        await run.until("recovery.started")
        await run.advance(BACKOFF_S)
        await run.until("recovery.started")
        await run.advance(2 * BACKOFF_S)
        assert await run.result() == "Yes."
        assert [request.model for request in model.requests] == ["first"] * 3 + ["second"]
        assert recoveries(run) == [("overloaded", 2, 6), ("overloaded", 3, 6), ("model_error", 4, 6)]
        steps = [(p.kind, p.state) for p in run.of_type("run.step")]
        assert steps.count(("retry", "started")) == 3
        assert steps.count(("retry", "failed")) == 2


async def test_every_model_of_the_list_has_its_own_tries():
    model = Says(first=[BUSY], second=[BUSY, said("Yes.")])
    async with driving(Talk(model, "first", "second", limits=AgentLimits(max_model_attempts=2))) as run:
        await run.until("recovery.started")
        await run.advance(BACKOFF_S)
        await run.until("notice")
        await run.until("recovery.started", lambda p: p.attempt == 4)
        await run.advance(BACKOFF_S)
        assert await run.result() == "Yes."
        assert [request.model for request in model.requests] == ["first", "first", "second", "second"]


async def test_when_no_model_is_left_the_last_error_is_the_runs():
    model = Says(first=[GONE], second=[[ModelRateLimited("slow down", retry_after_s=600)]])
    async with driving(Talk(model, "first", "second")) as run:
        failed = (await run.ended()).payload
        assert (failed.code, failed.text, failed.retryable) == ("rate_limited", "slow down", True)
        assert len(model.requests) == 2


async def test_a_conversation_that_is_too_long_is_too_long_for_the_next_model_as_well():
    model = Says(first=[[ContextTooLong("too long")]], second=[said("Yes.")])
    async with driving(Talk(model, "first", "second")) as run:
        assert (await run.ended()).payload.code == "context_too_long"
        assert len(model.requests) == 1


# -- in the middle


async def test_what_broke_off_is_superseded_and_never_joined_to_what_comes_after():
    broken = [opened(), TextDelta(text="Half a "), ModelStalled("silent")]
    model = Says(broken, said("A whole answer."))
    async with driving(Talk(model)) as run:
        await run.until("recovery.started")
        await run.advance(BACKOFF_S)
        assert await run.result() == "A whole answer."
        (gone,) = run.of_type("message.superseded")
        (kept,) = [p for p in run.of_type("message.completed") if p.role == "assistant"]
        assert kept.text == "A whole answer."
        assert gone.message_id != kept.message_id
        # What it has cost is counted all the same.
        assert run.of_type("usage.updated")[-1].input_tokens == 2 * 7
        retry = next(p for p in run.of_type("run.step") if p.kind == "retry")
        turn = next(p for p in run.of_type("run.step") if p.kind == "turn")
        assert (retry.parent_step_id, retry.attempt) == (turn.step_id, 2)


# -- waits


async def test_a_run_that_comes_while_the_model_has_no_room_says_that_it_waits():
    limiter, clock = Limiter(), ManualClock()
    leave = await limiter.admit("first", clock=clock)
    limiter.failed(leave, ModelOverloaded("busy"), clock=clock, wait_s=5)
    model = Says(said("Yes."))
    async with driving(Talk(model, limiter=limiter), clock=clock) as run:
        waits = (await run.until("recovery.started")).payload
        assert (waits.kind, waits.attempt, waits.wait_s) == ("overloaded", 1, 5)
        await run.advance(4.9)
        assert model.requests == []
        await run.advance(0.2)
        assert await run.result() == "Yes."
        # It is over for people too.
        types = [event.type for event in run.events]
        assert types.index("run.status", types.index("recovery.started")) < types.index("message.started")
        assert [p.kind for p in run.of_type("run.step")] == ["turn", "turn"]


async def test_a_correction_now_ends_a_wait_of_the_runs_own_and_is_in_the_next_try():
    model = Says([ModelStalled("silent")], said("In blue."))
    async with driving(Talk(model)) as run:
        await run.until("recovery.started")
        await run.correct("in blue", mode="now")
        assert await run.result() == "In blue."
        assert [part.text for part in model.requests[1].messages[0].parts] == ["Go.", "in blue"]


async def test_a_correction_now_enters_at_once_but_the_provider_is_still_waited_for():
    model = Says([ModelRateLimited("wait", retry_after_s=30)], said("In blue."))
    talk = Talk(model)
    async with driving(talk) as run:
        await run.until("recovery.started")
        await run.advance(10)
        await run.correct("in blue", mode="now")
        await run.until("correction.applied")
        waits = (await run.until("recovery.started")).payload
        assert (waits.kind, waits.wait_s) == ("rate_limit", 20)
        assert len(model.requests) == 1
        await run.advance(20)
        assert await run.result() == "In blue."
        assert [part.text for part in model.requests[1].messages[0].parts] == ["Go.", "in blue"]


async def test_a_correction_for_the_next_step_is_in_the_next_try():
    model = Says([ModelStalled("silent")], said("In blue."))
    async with driving(Talk(model)) as run:
        await run.until("recovery.started")
        await run.correct("in blue")
        await run.advance(BACKOFF_S)
        assert await run.result() == "In blue."
        assert [part.text for part in model.requests[1].messages[0].parts] == ["Go.", "in blue"]


async def test_cancelled_while_it_waits():
    model = Says([ModelRateLimited("wait", retry_after_s=30)])
    async with driving(Talk(model)) as run:
        await run.until("recovery.started")
        await run.cancel()
        await run.until("run.cancelled")
        assert len(model.requests) == 1


# -- a shorter conversation


async def test_it_is_asked_with_less_as_long_as_that_goes():
    left = [True, True]
    model = Says([ContextTooLong("long")], said("Too mu", stop_reason=WINDOW_FULL), said("Short."))
    async with driving(Talk(model, shrink=left.pop)) as run:
        assert await run.result() == "Short."
        assert left == []
        assert recoveries(run) == [("context", 1, 3), ("context", 2, 3)]
        assert [p.reason for p in run.of_type("message.superseded")] == ["context_too_long"]
        assert run.of_type("usage.updated")[-1].output_tokens == 2 * SPENT.output_tokens


async def test_with_less_three_times_at_most():
    model = Says([ContextTooLong("long")])
    async with driving(Talk(model, shrink=lambda: True)) as run:
        failed = (await run.ended()).payload
        assert (failed.code, failed.retryable) == ("context_too_long", False)
        assert len(model.requests) == 4


async def test_an_answer_that_filled_the_window_stands_if_there_is_no_less():
    talk = Talk(Says(said("Too mu", stop_reason=WINDOW_FULL)))
    async with driving(talk) as run:
        assert await run.result() == "Too mu"
        assert talk.turned[0].stop_reason == WINDOW_FULL


# -- how it is shown


class Masks:
    """Shows no digit, and holds back the last character."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        text = self._held + "".join(each for each in text if not each.isdigit())
        self._held = text[-1:]
        return text[:-1]

    def end(self) -> str:
        held, self._held = self._held, ""
        return held


async def journal_of(port) -> dict[str, list]:
    """Read in the run's next turn: the records of its journal."""
    found: dict[str, list] = {}
    for record in port.journal:
        found.setdefault(record.kind, []).append(record)
    return found


async def test_people_see_what_the_filter_lets_through_and_the_journal_keeps_the_models_words():
    talk = Talk(Says(said("PIN 12", "34 it is", "!")), style=SpeechStyle(text_filter=Masks), stage="s1")
    async with driving(talk) as run:
        assert await run.result() == "PIN 1234 it is!"
        assert run.text == "PIN  it is!"
        (completed,) = [p for p in run.of_type("message.completed") if p.role == "assistant"]
        assert completed.text == "PIN  it is!"


async def test_what_is_journalled_of_a_message():
    seen: dict[str, list] = {}
    gate = asyncio.Event()
    talk = Talk(Says(said("Hel", "lo")), style=SpeechStyle(text_filter=Masks), stage="stage_1")

    async def act(port):
        if port.recovered:
            seen.update(await journal_of(port))
            return "read"
        await talk(port)
        await gate.wait()
        return ""

    async with driving(act) as run:
        await run.until("message.completed", lambda p: p.role == "assistant")
        await run.crash()
        assert await run.result() == "read"
        (message,), (turn,) = seen["message"], seen["turn"]
        assert decode_message(message.data).parts == (Text(text="Hello"),)
        assert turn.key == message.key
        record = msgspec.json.decode(turn.data, type=TurnRecord)
        assert (record.stop_reason, record.stage, record.heard) == ("end_turn", "stage_1", ())


async def test_of_a_quiet_message_nothing_is_seen_but_what_it_cost():
    call = Call(id="call_1", provider_id="p1", tool="look", args={})
    events = [opened(), TextDelta(text="I look."), CallOpened(id="call_1", tool="look")]
    whole = Finished(stop_reason="tool_use", parts=(Text(text="I look."), call), usage=SPENT)
    talk = Talk(Says([*events, whole]), style=SpeechStyle(quiet=True))
    async with driving(talk) as run:
        assert await run.result() == "I look."
        assert talk.turned[0].message.parts == (Text(text="I look."), call)
        types = {event.type for event in run.events}
        assert not types & {"message.started", "message.delta", "tool.preparing"}
        assert [p.role for p in run.of_type("message.completed")] == ["user"]
        assert run.of_type("usage.updated")[-1].output_tokens == SPENT.output_tokens


async def test_a_quiet_message_that_is_interrupted_keeps_what_was_said():
    endless = [opened(), TextDelta(text="In red"), asyncio.Event()]
    talk = Talk(Says(endless, said("In blue.")), style=SpeechStyle(quiet=True), turns=2)
    async with driving(talk) as run:
        await run.until("run.step")
        await eventually(lambda: talk.model.open)
        for _ in range(20):
            await asyncio.sleep(0)
        await run.correct("blue", mode="now")
        assert await run.result() == "In blue."
        first = talk.turned[0]
        assert (first.stop_reason, first.message.parts) == ("interrupted", (Text(text="In red"),))
        assert run.text == ""


async def test_what_the_filter_held_back_of_an_interrupted_message_is_shown_at_its_end():
    endless = [opened(), TextDelta(text="In red"), asyncio.Event()]
    talk = Talk(Says(endless, said("In blue.")), style=SpeechStyle(text_filter=Masks), turns=2)
    async with driving(talk) as run:
        await run.until("message.delta")
        await run.correct("blue", mode="now")
        await run.result()
        first = run.of_type("message.completed")[1]
        assert (first.state, first.text) == ("interrupted", "In red")


async def test_an_interrupted_message_of_which_nothing_was_shown_is_superseded_and_still_known():
    endless = [opened(), TextDelta(text="1234"), asyncio.Event()]
    talk = Talk(Says(endless, said("In blue.")), style=SpeechStyle(text_filter=Masks), turns=2)
    async with driving(talk) as run:
        await run.until("message.started")
        for _ in range(20):
            await asyncio.sleep(0)
        await run.correct("blue", mode="now")
        await run.result()
        assert [p.reason for p in run.of_type("message.superseded")] == ["interrupted"]
        assert talk.turned[0].message.parts == (Text(text="1234"),)


async def test_nothing_of_an_answer_is_seen_before_the_hold_lets_go():
    gate = asyncio.Event()
    talk = Talk(Says(said("Hel", "lo")), style=SpeechStyle(hold=gate.wait))
    async with driving(talk) as run:
        await run.until("run.step")
        for _ in range(50):
            await asyncio.sleep(0)
        assert talk.model.open == 1
        assert [message.role for message in (await run.view()).messages] == ["user"]
        gate.set()
        assert await run.result() == "Hello"
        assert run.text == "Hello"


async def test_a_hold_that_raises_ends_it_unseen_and_the_model_is_left():
    async def trip() -> None:
        raise RunFailure("guardrail", "not this")

    talk = Talk(Says(said("Secret")), style=SpeechStyle(hold=trip))
    async with driving(talk) as run:
        assert (await run.ended()).payload.code == "guardrail"
        assert talk.model.open == 0
        assert {p.role for p in run.of_type("message.completed")} == {"user"}
        assert run.of_type("message.started") == []
        assert run.of_type("usage.updated")[-1].input_tokens == 7


async def test_citations_become_objects_of_the_message():
    page = Cited(data={"cited_text": "It rained.", "url": "https://example.org/weather"})
    book = Cited(data={"title": "Weather", "unit": "page", "start": 3, "end": 4})
    talk = Talk(Says(said("It rained.", more=[page, page, book])))
    async with driving(talk) as run:
        await run.result()
        objects = run.of_type("object.created")
        assert [(p.kind, p.data) for p in objects] == [("citation", page.data), ("citation", book.data)]
        assert {p.message_id for p in objects} == {talk.turned[0].message_id}


async def test_the_citations_of_a_quiet_message_are_of_no_message_and_wait_for_the_hold():
    gate = asyncio.Event()
    cited = Cited(data={"title": "Weather"})
    talk = Talk(Says(said("It rained.", more=[cited])), style=SpeechStyle(quiet=True, hold=gate.wait))
    async with driving(talk) as run:
        await run.until("run.step")
        for _ in range(50):
            await asyncio.sleep(0)
        assert not (await run.view()).objects
        gate.set()
        await run.result()
        assert [p.message_id for p in run.of_type("object.created")] == [None]


async def test_the_citations_of_what_broke_off_are_not_shown():
    broken = [opened(), TextDelta(text="a"), Cited(data={"title": "x"}), ModelFailed("broken")]
    async with driving(Talk(Says(broken, said("b")))) as run:
        await run.until("recovery.started")
        await run.advance(BACKOFF_S)
        await run.result()
        assert run.of_type("object.created") == []


async def test_recoveries_and_calls_are_counted():
    before = exposed().decode()
    model = Says(BUSY, said("Yes."))
    async with driving(Talk(model, limits=AgentLimits(max_model_attempts=2))) as run:
        await run.until("recovery.started")
        await run.advance(BACKOFF_S)
        await run.result()
    for line in (
        'midstream_recoveries_total{kind="overloaded"}',
        'midstream_model_calls_total{outcome="overloaded"}',
        'midstream_model_calls_total{outcome="answered"}',
    ):
        assert counted(exposed().decode(), line) == counted(before, line) + 1


def counted(text: str, name: str) -> float:
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)), 0.0)
