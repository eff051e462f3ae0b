"""The three phases together: what is changed, what is put back, and what a failure costs."""

import msgspec
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midstream.agents.conversation import AssistantMessage, Call, encode_message
from midstream.agents.outflow.contract import Audience, Outflow, ToolInfo
from midstream.agents.outflow.known import Secrets
from midstream.agents.outflow.outflow import Passage
from midstream.agents.outflow.transform import DROPPED, HIDDEN_LABEL, HIDDEN_TOOL, SHOWN, clean, kept, masked
from midstream.log import JournalRecord
from midstream.runs.contract import CallRecord, Principal
from midstream_protocol import events as ev
from midstream_protocol.events import Payload

AUDIENCE = Audience(run_id="run_1", thread_id="th_1", agent="tester", principal=Principal(id="ann", name="Ann"))
CANARY = "canary-7f3a"
MESSAGE = "msg_1"

PREPARING = ev.ToolPreparing(tool_call_id="c1", message_id=MESSAGE, tool="search", label="Search")
STARTED = ev.ToolStarted(
    tool_call_id="c1",
    tool="search",
    label=f"Search {CANARY}",
    args_preview={"q": CANARY, "n": 1, "token": "x"},
    args_digest="d" * 64,
    attempt=1,
    message_id=MESSAGE,
)
REQUESTED = ev.ToolRequested(
    tool_call_id="c1",
    tool="search",
    label=CANARY,
    args={"q": CANARY},
    client_id="cl",
    expires_at="2026-01-01T00:00:00.000Z",
    expires_in_s=1,
)
APPROVAL = ev.ApprovalRequired(
    approval_id="a1",
    tool_call_id="c1",
    tool="search",
    label=f"Search {CANARY}",
    reason="policy",
    risk="low",
    args={"q": CANARY, "own": "blue-horse"},
    editable=True,
    args_digest="d" * 64,
    decisions=["approve", "deny"],
    remember_scopes=["run"],
    expires_at="2026-01-01T00:00:00.000Z",
    expires_in_s=1,
    on_expire="deny",
    preview=ev.Preview(kind="text", data=f"{CANARY} blue-horse"),
)
TODOS = [ev.Todo(id="t1", title=f"Find {CANARY}", agent="tester", status="pending", depends_on=[])]
PROGRESS = ev.ToolProgress(
    tool_call_id="c1", text=f"{CANARY} found", fraction=0.5, chunk=ev.Chunk(index=0, data=CANARY)
)
COMPLETED = ev.ToolCompleted(tool_call_id="c1", duration_ms=1, preview=f"got {CANARY}", via="tool")
FAILED = ev.ToolFailed(tool_call_id="c1", code="tool_error", text=CANARY, outcome="failed", retryable=False)
OBJECT = ev.ObjectCreated(object_id="o1", kind="table", data={"cell": CANARY}, tool_call_id="c1")
USAGE = ev.UsageUpdated(input_tokens=1, output_tokens=1, cached_input_tokens=0, total_tokens=2, by_model={})
STATUS = ev.RunStatusChanged(status="running", phase="working", text=f"Looking for {CANARY}")

DRAFTS = [
    *(PREPARING, STARTED, REQUESTED, APPROVAL, PROGRESS, COMPLETED, FAILED, OBJECT, USAGE, STATUS),
    ev.RunStep(step_id="s1", state="started", kind="stage", title=CANARY, agent="tester", todo_id="t1"),
    ev.ThreadTitled(title=CANARY),
    ev.PlanCreated(todos=TODOS),
    ev.PlanUpdated(todos=TODOS, reason=CANARY),
    ev.GuardrailTriggered(name="scope", reason=CANARY),
    ev.Notice(level="info", code="c", text=CANARY),
    ev.InputRequired(input_id="i1", question=f"{CANARY} blue-horse?", expires_at="x", expires_in_s=1, choices=["a"]),
    ev.MessageStarted(message_id=MESSAGE, role="assistant", agent="tester"),
    ev.MessageDelta(message_id=MESSAGE, text=f"{CANARY} blue-horse"),
    ev.ReasoningDelta(message_id=MESSAGE, text="blue-horse"),
    ev.MessageCompleted(message_id=MESSAGE, role="assistant", text="x", state="complete"),
    ev.MessageSuperseded(message_id=MESSAGE, reason="x"),
    ev.RecoveryStarted(kind="overloaded", attempt=1, max_attempts=2, wait_s=1),
    ev.ToolRetrying(tool_call_id="c1", attempt=2, max_attempts=3, wait_s=1, code="timeout"),
    ev.ToolPending(tool_call_id="c1", expires_at="x"),
    ev.ContextTrimmed(before_tokens=2, after_tokens=1, dropped=1, truncated=0),
]
FOR_DECIDING = (ev.ToolRequested, ev.ApprovalRequired, ev.InputRequired, ev.MessageDelta)
"""What a person or a client must have whole; of a message's text the stream's filter has decided."""


@pytest.fixture(autouse=True)
def log():
    """Tracebacks are slow to print, and nobody reads them here."""
    with structlog.testing.capture_logs() as entries:
        yield entries


def passage(**outflow) -> Passage:
    return Passage(Outflow(**outflow), AUDIENCE)


def changed_fields(before: Payload, after: Payload) -> set[str]:
    return {name for name in before.__struct_fields__ if getattr(before, name) != getattr(after, name)}


def test_every_draft_is_tried():
    own = {"run.started", "run.cancelling", "run.completed", "run.failed", "run.cancelled", "approval.resolved"}
    own |= {name for name in ev.EVENTS if name.startswith(("correction.", "input.resolved"))}
    assert {payload.TYPE for payload in DRAFTS} == set(ev.EVENTS) - own


@pytest.mark.parametrize("payload", DRAFTS, ids=lambda p: p.TYPE)
def test_secrets_are_hidden_in_what_is_shown(payload):
    shown = clean(payload, Secrets(["blue-horse"]))
    assert "blue-horse" not in str(shown)
    assert changed_fields(payload, shown) <= {*SHOWN.get(type(payload), ()), "args", "choices"}
    assert (CANARY in str(shown)) == isinstance(payload, FOR_DECIDING)
    assert msgspec.convert(msgspec.to_builtins(shown), type(shown)) == shown


@pytest.mark.parametrize("payload", DRAFTS, ids=lambda p: p.TYPE)
def test_masked_has_nothing_for_people_and_everything_else(payload):
    shown = masked(payload)
    assert type(shown) is type(payload)
    assert changed_fields(payload, shown) <= set(SHOWN.get(type(payload), ()))
    assert (CANARY in str(shown)) == isinstance(payload, ev.ToolRequested | ev.ApprovalRequired)
    assert msgspec.convert(msgspec.to_builtins(shown), type(shown)) == shown


class Boom(Exception):
    pass


def boom(*_args):
    raise Boom(CANARY)


PHASES = ["transform", "process"]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    "bad", [boom, lambda *_: 7, lambda *_: STATUS, lambda p, *_: type(p), lambda *_: None], ids=range(5)
)
@pytest.mark.asyncio
async def test_a_function_that_fails_costs_the_texts_and_not_the_run(phase, bad):
    for payload in DRAFTS:
        shown = await passage(**{phase: (bad,)}).passed(payload)
        if isinstance(payload, ev.UsageUpdated):
            assert shown == payload
        elif isinstance(payload, DROPPED):
            assert shown is None or shown == STATUS
        else:
            assert shown is not None
            assert changed_fields(shown, masked(clean(payload, Secrets()))) <= {"label"}
            assert msgspec.convert(msgspec.to_builtins(shown), type(payload)) == shown


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.asyncio
async def test_ids_and_facts_are_put_back_and_texts_are_taken(phase):
    def meddles(payload, *_):
        if not isinstance(payload, ev.ToolStarted):
            return payload
        return msgspec.structs.replace(
            payload, tool_call_id="other", args_digest="x", attempt=9, label="Look", tool="t"
        )

    shown = await passage(**{phase: (meddles,)}).passed(STARTED)
    assert (shown.tool_call_id, shown.args_digest, shown.attempt) == ("c1", "d" * 64, 1)
    assert (shown.label, shown.tool) == ("Look", "t")


@pytest.mark.parametrize(
    "wrong", [{"label": 5}, {"label": None}, {"args_preview": [1]}, {"args_preview": {"x": object()}}]
)
@pytest.mark.asyncio
async def test_what_could_not_be_read_back_is_not_written(wrong):
    it = passage(transform=(lambda p: msgspec.structs.replace(p, **wrong),))
    shown = await it.passed(STARTED)
    assert msgspec.json.decode(msgspec.json.encode(shown), type=ev.ToolStarted) == shown


@pytest.mark.asyncio
async def test_the_phases_come_in_their_order_and_each_sees_what_the_one_before_made():
    async def catalogue(tool):
        return ToolInfo(label=f"{tool}!")

    def transform(payload):
        return msgspec.structs.replace(payload, label=payload.label + "1")

    def process(payload, audience):
        return msgspec.structs.replace(payload, label=f"{payload.label}2 for {audience.principal.name}")

    it = passage(transform=(transform, transform), enrich=(catalogue,), process=(process,))
    shown = await it.passed(PREPARING)
    assert shown.label == "search!2 for Ann"
    assert it.passed_now(PREPARING) == shown, "what was asked is known"
    fresh = passage(transform=(transform,), enrich=(catalogue,), process=(process,))
    assert fresh.passed_now(PREPARING).label == "Search12 for Ann", "and what was not asked is not waited for"


@pytest.mark.asyncio
async def test_a_failing_catalogue_is_done_without():
    async def catalogue(tool):
        raise Boom(CANARY)

    shown = await passage(enrich=(catalogue,)).passed(PREPARING)
    assert shown == PREPARING


def test_todos_keep_their_ids_and_states():
    plan = ev.PlanCreated(todos=TODOS)
    other = ev.Todo(id="t9", title="Shorter", agent="x", status="completed")
    shown, meddled = kept(plan, ev.PlanCreated(todos=[other]))
    assert meddled
    assert shown.todos == [msgspec.structs.replace(TODOS[0], title="Shorter")]
    assert kept(plan, ev.PlanCreated(todos=[]))[0] == plan


# -- messages


def shout(payload, *_):
    if isinstance(payload, ev.MessageDelta):
        return msgspec.structs.replace(payload, text=payload.text.upper() + "!")
    return payload


def no_b(payload, *_):
    return None if isinstance(payload, ev.MessageDelta) and "b" in payload.text else payload


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(alphabet="abc", min_size=1, max_size=3), max_size=6),
    st.sampled_from([(), (shout,), (no_b,), (no_b, shout), (boom,)]),
    st.sampled_from([None, "last", "before the rest"]),
)
def test_a_messages_text_is_what_its_deltas_showed(said, functions, given_up):
    it = passage(process=functions)
    it.passed_now(ev.MessageStarted(message_id=MESSAGE, role="assistant", agent="tester"))
    admitted, shown = list(said), []
    lost = {"last": len(said) - 1, "before the rest": len(said) - 2}.get(given_up, -1)
    for number, text in enumerate(said):
        delta = it.passed_now(ev.MessageDelta(message_id=MESSAGE, text=text))
        # Its speaker was stopped while it waited for the lane.
        if number == lost:
            admitted[number] = ""
        elif delta is not None:
            shown.append((number, delta.text))
    end = ev.MessageCompleted(message_id=MESSAGE, role="assistant", text="".join(admitted), state="complete")
    text = it.passed_now(end).text
    expected = "".join(text for _, text in shown)
    # Two equal pieces cannot be told apart, and then it does not matter which of them it was - unless one was shown.
    assert text == expected or (lost >= 0 and said[lost] in said[lost - 1 : lost] + said[lost + 1 :])


@pytest.mark.asyncio
async def test_a_message_nobody_began_is_left_alone():
    payload = ev.MessageCompleted(message_id="msg_9", role="user", text="Hello", state="complete")
    assert await passage(transform=(shout,)).passed(payload) == payload


# -- hidden tools


def hides_search(audience):
    return frozenset({"search"}) if audience.principal.id == "ann" else frozenset()


@pytest.mark.asyncio
async def test_hidden_tools_are_seen_as_a_step():
    it = passage(hidden_tools=hides_search)
    shown = [await it.passed(each) for each in (PREPARING, STARTED, PROGRESS, OBJECT, COMPLETED, FAILED)]
    assert "earch" not in str(shown)
    assert CANARY not in str(shown)
    assert {(p.tool, p.label) for p in shown[:2]} == {(HIDDEN_TOOL, HIDDEN_LABEL)}
    assert shown[1].args_preview == {}
    assert shown[1].args_digest == STARTED.args_digest
    assert (shown[2].text, shown[2].fraction, shown[2].chunk) == (None, 0.5, None)
    assert shown[4].preview == ""
    # What must be answered is not hidden.
    assert (await it.passed(APPROVAL)).args == APPROVAL.args
    assert (await it.passed(REQUESTED)).args == REQUESTED.args


@pytest.mark.asyncio
async def test_other_calls_and_other_users_see_all():
    other = msgspec.structs.replace(COMPLETED, tool_call_id="c2", preview="fine")
    it = passage(hidden_tools=hides_search)
    await it.passed(STARTED)
    assert await it.passed(other) == other
    bob = Audience(run_id="r", thread_id="t", agent="a", principal=Principal(id="bob", name="Bob"))
    assert (await Passage(Outflow(hidden_tools=hides_search), bob).passed(PREPARING)) == PREPARING


def test_calls_of_the_program_before_stay_hidden():
    call = Call(id="c1", provider_id="p1", tool="search", args={})
    for record in (
        JournalRecord(kind="message", key=MESSAGE, data=encode_message(AssistantMessage(parts=(call,)))),
        JournalRecord(kind="call", key="c1", data=msgspec.json.encode(CallRecord(tool="search", args={}))),
    ):
        it = Passage(Outflow(hidden_tools=hides_search), AUDIENCE, journal=[record])
        assert it.passed_now(COMPLETED).preview == ""


def test_a_hidden_tools_that_fails_hides_all():
    assert passage(hidden_tools=boom).passed_now(PREPARING).label == HIDDEN_LABEL


# -- the end


@pytest.mark.asyncio
async def test_the_runs_last_words_leave_as_a_message_does():
    it = passage(process=(shout,), secrets=("blue-horse",))
    it.text_filter(lambda: ["search"])
    said = 'So <think>hm</think>blue-horse {"name": "search", "arguments": {}}{"name": "Bob", "arguments": {}}'
    assert await it.leaving(said) == 'SO [HIDDEN] {"NAME": "BOB", "ARGUMENTS": {}}!'
    assert await it.leaving({"n": [1, "<b>blue-horse</b>"]}) == {"n": [1, "<b>[hidden]</b>"]}
    assert await it.leaving(None) is None
    assert await passage(process=(boom,)).leaving("x") == "[hidden]"


def test_what_is_reported_is_reported_once(log):
    it = passage(transform=(boom,))
    for _ in range(5):
        it.passed_now(STATUS)
        it.passed_now(STARTED)
    assert [(each["of"], each["function"]) for each in log] == [("run.status", "boom"), ("tool.started", "boom")]
