"""The store is told `waiting` exactly when nothing but a person can move the run on: what does not wait is taken up
again at once after a crash.
"""

from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st

from midstream.runs.apply import apply
from midstream.runs.commands import Door
from midstream.runs.contract import Limits
from midstream.runs.decide import decide
from midstream.runs.inputs import Recovered
from midstream.runs.state import RunState
from midstream_protocol import events as ev
from midstream_protocol.codec import iso_ms
from tests.runs.simple import OpenRules

AT: Final = 1_767_225_600_000
TEAM: Final = 3


class Stage:
    """What one stage is doing, as it knows itself."""

    def __init__(self, at: int) -> None:
        self.todo = f"d{at}"
        self.step: str | None = None
        self.turn: str | None = None
        self.calls: dict[str, str] = {}
        """Its open calls: `new` (nobody was asked about it yet), `asked`, `running`."""

    @property
    def waits(self) -> bool:
        return bool(self.calls) and set(self.calls.values()) == {"asked"}


class Team:
    """Three stages of one plan, any of which may wait for a person. `chain`: each needs the one before."""

    def __init__(self, *, chain: bool) -> None:
        self.state = RunState(run_id="r")
        self.stages = [Stage(at) for at in range(TEAM)]
        self.todos = [
            ev.Todo(
                id=f"d{at}",
                title="t",
                agent="a",
                status="pending",
                depends_on=[f"d{at - 1}"] if chain and at else [],
            )
            for at in range(TEAM)
        ]
        self.count = 0
        self.say(ev.RunStarted(agent="a", thread_id="t"))
        self.say(ev.PlanCreated(todos=list(self.todos)))

    def say(self, payload: ev.Payload, step_id: str | None = None) -> None:
        apply(self.state, self.state.head + 1, payload, AT, step_id=step_id)

    def new(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def ready(self, at: int) -> bool:
        over = {todo.id for todo in self.todos if todo.status == "completed"}
        return self.todos[at].status == "pending" and over.issuperset(self.todos[at].depends_on or ())

    def mark(self, at: int, status: Any) -> None:
        todo = self.todos[at]
        self.todos[at] = ev.Todo(id=todo.id, title=todo.title, agent="a", status=status, depends_on=todo.depends_on)
        self.say(ev.PlanUpdated(todos=list(self.todos)))

    # -- what may happen

    def begin(self, at: int) -> None:
        """Also again: a stage that was cut off goes on in steps of its own."""
        stage = self.stages[at]
        if self.ready(at):
            self.mark(at, "in_progress")
        if self.todos[at].status != "in_progress" or stage.step is not None:
            return
        stage.step, stage.turn = self.new("s"), self.new("t")
        self.say(_step(stage.step, "started", kind="stage", todo_id=stage.todo))
        self.say(_step(stage.turn, "started", kind="turn", parent=stage.step))

    def call(self, at: int) -> None:
        """A call that the model wants, and that nobody was asked about yet."""
        stage = self.stages[at]
        if stage.turn is not None:
            call = self.new("c")
            stage.calls[call] = "new"
            message = self.new("m")
            self.say(ev.MessageStarted(message_id=message, role="assistant", agent="a"), stage.turn)
            self.say(ev.ToolPreparing(tool_call_id=call, message_id=message, tool="x", label="X"), stage.turn)
            done = ev.MessageCompleted(message_id=message, role="assistant", text="", state="complete")
            self.say(done, stage.turn)

    def ask(self, at: int) -> None:
        stage = self.stages[at]
        for call in [c for c, doing in stage.calls.items() if doing == "new"][:1]:
            if stage.turn is not None:
                stage.calls[call] = "asked"
                self.say(_approval(call), stage.turn)

    def answer(self, at: int) -> None:
        stage = self.stages[at]
        for call in [c for c, doing in stage.calls.items() if doing == "asked"][:1]:
            stage.calls[call] = "running"
            resolved = ev.ApprovalResolved(
                approval_id=f"a_{call}", tool_call_id=call, decision="approved", by="me", edited=False, args_digest="d"
            )
            self.say(resolved)
            started = ev.ToolStarted(
                tool_call_id=call, tool="x", label="X", args_preview={}, args_digest="d", attempt=1
            )
            self.say(started, stage.turn)

    def returned(self, at: int) -> None:
        stage = self.stages[at]
        for call in [c for c, doing in stage.calls.items() if doing == "running"][:1]:
            del stage.calls[call]
            self.say(ev.ToolCompleted(tool_call_id=call, duration_ms=1, preview="", via="tool"), stage.turn)

    def end(self, at: int) -> None:
        stage = self.stages[at]
        if stage.turn is not None and stage.step is not None and not stage.calls:
            self.say(_step(stage.turn, "completed", kind="turn", parent=stage.step))
            self.say(_step(stage.step, "completed", kind="stage", todo_id=stage.todo))
            stage.step = stage.turn = None
            self.mark(at, "completed")

    def crash(self, _at: int) -> None:
        door = Door(state=self.state, rules=OpenRules(), limits=Limits(), now_ms=AT, secret=b"")
        was = self.state.recoveries
        resting = self.expected_rest
        for planned in decide(door, Recovered()).events:
            self.say(planned.payload)
        assert (self.state.recoveries == was) is resting
        self.state.recoveries = 0
        for stage in self.stages:
            stage.step = stage.turn = None

    # -- what must be true

    @property
    def expected_rest(self) -> bool:
        under_way = [stage for stage, todo in zip(self.stages, self.todos, strict=True) if todo.status == "in_progress"]
        return bool(under_way) and all(stage.waits for stage in under_way)

    @property
    def expected(self) -> str:
        can_begin = any(self.ready(at) for at in range(TEAM))
        return "waiting" if self.expected_rest and not can_begin else "running"


def _step(step_id: str, state: Any, *, kind: str, parent: str | None = None, todo_id: str | None = None) -> ev.RunStep:
    return ev.RunStep(
        step_id=step_id, state=state, kind=kind, title="", agent="a", parent_step_id=parent, todo_id=todo_id
    )


def _approval(call: str) -> ev.ApprovalRequired:
    return ev.ApprovalRequired(
        approval_id=f"a_{call}",
        tool_call_id=call,
        tool="x",
        label="X",
        reason="policy",
        risk="low",
        args={},
        editable=False,
        args_digest="d",
        decisions=["approve", "deny"],
        remember_scopes=[],
        expires_at=iso_ms(AT + 60_000),
        expires_in_s=60,
        on_expire="deny",
    )


DOINGS: Final = (
    *["begin"] * 4,
    *["call"] * 4,
    *["ask"] * 5,
    *["answer", "returned", "end", "crash"],
)

# Long stories are where several stages wait at once; the cut lets a failing one shrink.
STORIES = st.builds(
    lambda steps, cut: steps[:cut],
    st.lists(st.tuples(st.sampled_from(DOINGS), st.integers(0, TEAM - 1)), min_size=30, max_size=50),
    st.integers(0, 50),
)


@settings(max_examples=500, deadline=None)
@given(chain=st.booleans(), story=STORIES)
def test_a_run_waits_when_all_of_it_waits_for_people(chain: bool, story: list[tuple[str, int]]) -> None:
    team = Team(chain=chain)
    for doing, at in story:
        getattr(team, doing)(at)
        assert team.state.log_status() == team.expected, (doing, at)


def test_a_question_outside_of_any_step_is_everybodys() -> None:
    """An agent with a loop of its own says nothing of steps."""
    state = RunState(run_id="r")
    apply(state, 1, _step("s1", "started", kind="turn"), AT)
    asked = ev.InputRequired(input_id="i1", question="?", expires_at=iso_ms(AT + 1000), expires_in_s=1)
    apply(state, 2, asked, AT)
    assert state.log_status() == "waiting"
    apply(state, 3, ev.InputResolved(input_id="i1", by="me", answer="x"), AT)
    assert state.log_status() == "running"


def test_a_run_without_a_plan_still_waits_after_a_restart() -> None:
    """Its turn begins anew in another step, and finds its question open."""
    state = RunState(run_id="r")
    apply(state, 1, _step("s1", "started", kind="turn"), AT)
    apply(state, 2, _approval("c1"), AT, step_id="s1")
    apply(state, 3, _step("s1", "failed", kind="turn"), AT)
    apply(state, 4, _step("s2", "started", kind="turn"), AT)
    assert state.log_status() == "waiting"
