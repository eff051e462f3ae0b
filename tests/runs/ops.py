"""What agents, clients, time and death may do to a `World`, as random sequences.

Ops are small integers that are read against the state as it is, so that a random sequence mostly does what agents and
clients do (and now and then what they must not), and shrinks well.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from midstream.log import JournalRecord
from midstream.runs.commands import fingerprint
from midstream.runs.contract import (
    CallRecord,
    ResultRecord,
)
from midstream.runs.inputs import Asked, Drafted, End, Offer, ProgramEnded, Recovered, TakeCorrections, Tick
from midstream.runs.state import RunState
from midstream_protocol import commands as cmd
from midstream_protocol import events as ev
from midstream_protocol.codec import iso_ms
from midstream_protocol.digest import args_digest
from midstream_protocol.events import Payload
from tests.runs.simple import ME
from tests.runs.world import CLIENTS, LIMITS, SECRET, World


def pick(world: dict[str, Any], n: int) -> str | None:
    """The nth of these keys; None, now and then and when there are none."""
    keys = list(world)
    return keys[n % len(keys)] if keys and n != 7 else None


def calls_in(state: RunState, *states: str) -> dict[str, Any]:
    return {key: call for key, call in state.calls.items() if call.state in states}


def draft(world: World, kind: int, n: int, m: int) -> list[Payload]:
    """What agent code may say next; n == 7 names what is not there, m == 7 says something wrong."""
    state = world.state
    message = pick(state.message, n) or f"m{n}"
    step = pick(state.steps, n) or f"s{n}"
    at = iso_ms(world.now_ms + 1000 * (5 + 20 * m))
    args = {"n": m, "secret": "x"}
    digest = args_digest(SECRET, args)
    match kind:
        case 0:
            return [ev.MessageStarted(message_id=f"m{n}", role="assistant", agent="a")]
        case 1 | 2:
            return [ev.MessageDelta(message_id=message, text="ab"[: m % 3])]
        case 3:
            text = "".join(state.message[message].text) if message in state.message and m != 7 else "?"
            return [ev.MessageCompleted(message_id=message, role="assistant", text=text, state="complete")]
        case 4:
            return [ev.MessageSuperseded(message_id=message, reason="model_error")]
        case 5:
            return [ev.ReasoningDelta(message_id=message, text="hm")]
        case 6:
            return [ev.ToolPreparing(tool_call_id=f"t{n}", message_id=message, tool="srv", label="Do")]
        case 7 | 8:
            call = pick(calls_in(state, "preparing"), n) or f"t{n}"
            known = state.call_args.get(call, args) if m != 7 else {"other": 1}
            attempt = 1 if call not in calls_in(state, "running") or m == 7 else state.calls[call].attempt + 1
            started = ev.ToolStarted(
                tool_call_id=call,
                tool="srv",
                label="Do",
                args_preview={},
                args_digest=args_digest(SECRET, known),
                attempt=attempt,
            )
            return [started]
        case 9:
            call = pick(calls_in(state, "preparing"), n) or f"t{n}"
            known = state.call_args.get(call, args) if m != 7 else {"other": 1}
            return [
                ev.ToolRequested(
                    tool_call_id=call,
                    tool="cl",
                    label="Do",
                    args=known,
                    client_id=CLIENTS[m % 2] or "north",
                    expires_at=at,
                    expires_in_s=5,
                )
            ]
        case 10:
            call = pick(calls_in(state, "running", "background"), n) or f"t{n}"
            return [ev.ToolProgress(tool_call_id=call, fraction=m / 10)]
        case 11:
            call = pick(calls_in(state, "running"), n) or f"t{n}"
            return [ev.ToolRetrying(tool_call_id=call, attempt=m, max_attempts=9, wait_s=1, code="timeout")]
        case 12:
            call = pick(calls_in(state, "running"), n) or f"t{n}"
            return [ev.ToolPending(tool_call_id=call, expires_at=at)]
        case 13:
            call = pick(calls_in(state, "running", "background"), n) or f"t{n}"
            return [ev.ToolCompleted(tool_call_id=call, duration_ms=m, preview="", via="tool")]
        case 14:
            call = pick(calls_in(state, "preparing", "running", "background", "requested"), n) or f"t{n}"
            outcomes: list[Any] = ["not_started", "failed", "unknown"]
            outcome: Any = outcomes[m % 3] if m == 7 or call not in calls_in(state, "preparing") else "not_started"
            return [ev.ToolFailed(tool_call_id=call, code="tool_error", text="", outcome=outcome, retryable=False)]
        case 15 | 16:
            call = pick(calls_in(state, "preparing", "running"), n) or f"t{n}"
            return [
                ev.ApprovalRequired(
                    approval_id=f"a{world.count}_{n}" if m != 7 else f"a{n}",
                    tool_call_id=call,
                    tool="srv",
                    label="Do",
                    reason="policy",
                    risk="low",
                    args={},
                    editable=n % 3 > 0,
                    args_digest=digest,
                    decisions=["approve", "deny"],
                    remember_scopes=["run"],
                    expires_at=at,
                    expires_in_s=5,
                    on_expire="deny",
                )
            ]
        case 17:
            return [
                ev.InputRequired(
                    input_id=f"i{n}",
                    question="?",
                    expires_at=at,
                    expires_in_s=5,
                    choices=["yes", "no"] if m % 2 else None,
                    schema={"type": "string"} if not m % 2 else None,
                )
            ]
        case 18:
            states: list[Any] = ["started", "started", "completed", "failed", "skipped"]
            state_name = states[m % 5]
            at_step = f"s{n}" if state_name == "started" or m == 7 else step
            parent = pick(state.steps, m) if n % 3 == 0 else None
            return [
                ev.RunStep(
                    step_id=at_step,
                    state=state_name,
                    kind="turn",
                    title="",
                    agent="a",
                    parent_step_id=parent,
                    todo_id=f"d{m % 3}" if n % 2 else None,
                )
            ]
        case 19:
            return [(ev.PlanCreated if m % 2 else ev.PlanUpdated)(todos=todos(n, m))]
        case 20:
            statuses: list[Any] = ["running", "waiting", "queued"]
            status: Any = statuses[m % 3] if n == 7 else "running"
            return [ev.RunStatusChanged(status=status, phase="working", text="")]
        case 21:
            return [
                ev.UsageUpdated(input_tokens=n, output_tokens=m, cached_input_tokens=0, total_tokens=n + m, by_model={})
            ]
        case 22:
            return [ev.Notice(level="info", code="x", text="y")]
        case 23:
            return [ev.MessageCompleted(message_id=f"m{n}", role="user", text="u", state="complete")]
        case _:
            return [ev.RecoveryStarted(kind="overloaded", attempt=1, max_attempts=3, wait_s=0)]


DRAFTS: Final = 25


def todos(n: int, m: int) -> list[ev.Todo]:
    statuses: list[Any] = ["pending", "in_progress", "completed", "failed", "skipped"]
    return [
        ev.Todo(
            id=f"d{at}",
            title=f"Do {at}",
            agent="a",
            status=statuses[(n + at * m) % 5],
            depends_on=[f"d{at - 1}"] if at and m % 2 else [],
        )
        for at in range(n % 4)
    ]


def journal_of(*said: tuple[Payload, int]) -> tuple[JournalRecord, ...]:
    """The records that belong to what was said with that `m`: as the agent layer writes them."""
    records = []
    for payload, m in said:
        if isinstance(payload, ev.ApprovalRequired):
            call = CallRecord(tool=payload.tool, args={"n": m, "secret": "x"})
            records.append(JournalRecord(kind="call", key=payload.tool_call_id, data=msgspec.json.encode(call)))
        elif isinstance(payload, ev.ToolCompleted | ev.ToolFailed):
            result = ResultRecord(ok=isinstance(payload, ev.ToolCompleted), value=m)
            records.append(JournalRecord(kind="result", key=payload.tool_call_id, data=msgspec.json.encode(result)))
    return tuple(records)


def command(world: World, kind: int, n: int, m: int) -> cmd.CommandPayload:
    """What clients may ask; n == 7 names what is not there."""
    state = world.state
    match kind:
        case 0 if n == m or state.cancelling is not None:
            return cmd.RunCancel(mode="now" if m % 3 == 0 else "after_step", reason="stop" if n % 2 else None)
        case 2:
            return cmd.RunCancel(tool_call_id=pick(state.calls, n) or "t_none", mode="now")
        case 0 | 1 | 3 | 4:
            modes: list[Any] = ["next_step", "now", "when_idle"]
            return cmd.RunCorrect(
                text="x" * (70 if m == 7 else 3), mode=modes[m % 3], replan=[None, True, False][n % 3]
            )
        case 5:
            return cmd.CorrectionRevoke(correction_id=pick(state.corrections, n) or "c_none")
        case 6 | 7:
            return _approve(state, n, m)
        case 8:
            asked = {q.key: q for q in state.questions.values() if isinstance(q.payload, ev.InputRequired)}
            key = pick(asked, n) or pick(state.answers, n) or "i_none"
            return cmd.InputRespond(input_id=key, answer=["yes", "no", 5][m % 3])
        case _:
            client_calls = {key: call for key, call in state.calls.items() if call.client_id is not None}
            key = pick(client_calls, n) or pick(state.calls, n) or "t_none"
            answers: list[dict[str, Any]] = [
                {"ok": True, "result": {"n": m}},
                {"ok": False, "error": cmd.ToolError(code="nope", text="no")},
                {"progress": cmd.ToolProgressReport(text="half", fraction=0.5)},
            ]
            return cmd.ToolResult(tool_call_id=key, **answers[m % 3])


COMMANDS: Final = 11


def _approve(state: RunState, n: int, m: int) -> cmd.ApprovalRespond:
    asked = {q.key: q for q in state.questions.values() if isinstance(q.payload, ev.ApprovalRequired)}
    key = pick(asked, n) or pick(state.answers, n) or "a_none"
    question = asked.get(key)
    digest = question.payload.args_digest if question is not None else "d"  # type: ignore[union-attr]
    edits: list[dict[str, Any] | None] = [None, None, {}, {"n": 1}, {"n": -1}, {"extra": "é"}, None, None]
    return cmd.ApprovalRespond(
        approval_id=key,
        decision="deny" if m in (2, 5) else "approve",
        args=edits[m % 8],
        args_digest=[None, digest, digest, "wrong"][m % 4] if m else None,
        remember=cmd.Remember(scope="run" if m == 1 else "always") if m in (1, 6) else None,
    )


def ask(world: World, payload: cmd.CommandPayload, *, command_id: str, client: str | None) -> Asked:
    sent = cmd.Command(type=payload.TYPE, command_id=command_id, run_id="run_1", payload=payload)
    asked = Asked(command=sent, principal=ME, client_id=client, fingerprint=fingerprint(sent))
    world.sent.append(asked)
    return asked


def repeat(world: World, n: int, m: int) -> None:
    """A client that resends, or that uses an id for something else."""
    if not world.sent:
        return
    asked = world.sent[n % len(world.sent)]
    if m == 7:
        other = cmd.RunCorrect(text="z")
        sent = msgspec.structs.replace(asked.command, type=other.TYPE, payload=other)
        asked = Asked(command=sent, principal=ME, client_id=asked.client_id, fingerprint=fingerprint(sent))
    world.post(asked, wait=True)


def offer(n: int) -> Offer:
    return Offer(client_id=CLIENTS[n % 2] or "", tools=(cmd.ClientTool(name="cl", input_schema={"type": "object"}),))


# -- one step of a random life

Op = tuple[str, int, int, int]


def _say(world: World, kind: int, n: int, m: int) -> None:
    payloads = draft(world, kind % DRAFTS, n, m)
    step = pick(world.state.steps, m) if n % 2 else None
    if isinstance(payloads[0], ev.MessageDelta):
        texts = [payloads[0].text, *"cd"[: m % 3]]
        world.say(payloads[0].message_id, texts, step)
        return
    emitted = isinstance(payloads[0], ev.MessageStarted | ev.Notice | ev.ToolProgress)
    world.post(Drafted(payloads=tuple(payloads), journal=journal_of((payloads[0], m)), step_id=step), wait=not emitted)


def _say_two(world: World, kind: int, n: int, m: int) -> None:
    first, second = draft(world, kind % DRAFTS, n, m)[0], draft(world, (kind + n) % DRAFTS, m, n)[0]
    world.post(Drafted(payloads=(first, second), journal=journal_of((first, m), (second, n))), wait=True)


def _command(world: World, kind: int, n: int, m: int) -> None:
    payload = command(world, kind % COMMANDS, n, m)
    client = CLIENTS[(n + m) % 3]
    if isinstance(payload, cmd.ToolResult) and n % 4:
        call = world.state.calls.get(payload.tool_call_id)
        client = call.client_id if call is not None else client
    world.post(ask(world, payload, command_id=f"c{len(world.sent)}", client=client), wait=True)


def _take(world: World, kind: int, n: int, m: int) -> None:
    """Whoever looks first says what it saw and which of it changes the plan; some are gone when it takes them."""
    step = pick(world.state.steps, n)
    if step is None:
        return
    seen = [correction.correction_id for correction in world.state.due_corrections(ending=kind % 2 == 0)]
    only = frozenset(seen[m % 3 :]) if m < 6 else None
    item = TakeCorrections(step_id=step, ending=kind % 2 == 0, only=only, replan=frozenset(seen[::2]))
    world.takes.append(item)
    world.post(item, wait=True)


def _time(world: World, kind: int, n: int, m: int) -> None:
    world.beat()
    world.now_ms += 1 + (kind * n * m * 40 if kind % 3 else n)
    world.post(Tick(), wait=False)
    world.beat()
    if not world.state.ended:
        late = [q for q in world.state.questions.values() if q.expires_ms <= world.now_ms]
        assert not late, "nothing is open after its time"


def _crash(world: World, kind: int, _n: int, _m: int) -> None:
    if kind % 3:
        return
    world.crash()
    if not world.state.ended:
        world.post(Recovered(gone="gone" if kind == 12 else None), wait=False)
        world.beat()


def _end(world: World, kind: int, n: int, m: int) -> None:
    if n != m:
        return
    endings: list[Any] = [
        End(result={"n": n}),
        End(result=None, return_corrections=True),
        ProgramEnded(code="internal", text="It failed.", error_id="err_1"),
        ProgramEnded(),
    ]
    item = endings[kind % 4]
    world.post(item, wait=isinstance(item, End))


OPS: Final[dict[str, Callable[[World, int, int, int], None]]] = {
    "say": _say,
    "say_two": _say_two,
    "command": _command,
    "repeat": lambda world, _kind, n, m: repeat(world, n, m),
    "take": _take,
    "time": _time,
    "crash": _crash,
    "end": _end,
    "offer": lambda world, _kind, n, _m: world.post(offer(n), wait=True),
    "beat": lambda world, _kind, _n, _m: (world.beat(), None)[1],
}


def finish(world: World, how: int) -> None:
    """However it was going, it ends."""
    world.beat()
    if world.state.ended:
        return
    if how == 0:
        world.post(End(result="done", return_corrections=True), wait=True)
    elif how == 1:
        world.post(ProgramEnded(code="internal", text="It failed.", error_id="err_2"), wait=False)
    elif how == 2:
        world.now_ms += round(LIMITS.run_deadline_s * 1000) + 1
        world.post(Tick(), wait=False)
        world.beat()
    else:
        world.post(ask(world, cmd.RunCancel(mode="now"), command_id="c_last", client="north"), wait=True)
    world.beat()
    if not world.state.ended:
        # Cancelled: the end comes with the program's.
        world.post(ProgramEnded(), wait=False)
        world.beat()
    assert world.state.ended
