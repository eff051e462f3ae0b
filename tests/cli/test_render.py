"""Runs as transcripts: events in, what a person sees out."""

import itertools

import msgspec
import pytest

from midstream.cli.blocks import Break, Line, Status, Stream
from midstream.cli.render import Renderer
from midstream_protocol import events as ev
from midstream_protocol.codec import decode_event, event_bytes
from midstream_protocol.frames import RunAttached, RunReset
from midstream_protocol.view import fold_all, view_to_builtins

USAGE = ev.Usage(input_tokens=1000, output_tokens=200, cached_input_tokens=0, total_tokens=1200, by_model={})


def events(*payloads):
    return [
        decode_event(event_bytes(seq=seq, run_id="run_1", ts="2026-01-01T00:00:00.000Z", payload=payload))
        for seq, payload in enumerate(payloads, start=1)
    ]


def screen(parts) -> str:
    """What stands on the screen: streamed text and lines, without the status line."""
    text = ""
    for part in parts:
        match part:
            case Stream(said):
                text += said
            case Line(said):
                text += ("" if text.endswith("\n") or not text else "\n") + said + "\n"
            case Break():
                text += "" if text.endswith("\n") or not text else "\n"
    return text


def shown(*payloads, renderer=None) -> str:
    renderer = renderer or Renderer()
    return screen(itertools.chain.from_iterable(renderer.event(event) for event in events(*payloads)))


def delta(text, message_id="m1"):
    return ev.MessageDelta(message_id=message_id, text=text)


def completed(text, message_id="m1", **more):
    return ev.MessageCompleted(message_id=message_id, role="assistant", text=text, **({"state": "complete"} | more))


def approval(**more):
    return ev.ApprovalRequired(
        **(
            {
                "approval_id": "ap_1",
                "tool_call_id": "call_1",
                "tool": "edit_file",
                "label": "Edit notes.txt",
                "reason": "policy",
                "risk": "medium",
                "args": {"path": "notes.txt", "new": "a\nb"},
                "editable": True,
                "args_digest": "d",
                "decisions": ["approve", "deny"],
                "remember_scopes": ["run"],
                "expires_at": "2026-01-01T01:00:00.000Z",
                "expires_in_s": 3600.0,
                "on_expire": "deny",
            }
            | more
        )
    )


def test_a_whole_run():
    assert shown(
        ev.RunStarted(agent="copilot", thread_id="t"),
        ev.MessageCompleted(message_id="m0", role="user", text="fix it", state="complete"),
        ev.RunStatusChanged(status="running", phase="working", text="Thinking…"),
        ev.MessageStarted(message_id="m1", role="assistant", agent="copilot"),
        delta("I look "),
        delta("first."),
        completed("I look first."),
        ev.ToolPreparing(tool_call_id="call_1", message_id="m1", tool="list_files", label="List files"),
        ev.ToolStarted(
            tool_call_id="call_1",
            tool="list_files",
            label="List files in .",
            args_preview={},
            args_digest="d",
            attempt=1,
        ),
        ev.ToolCompleted(tool_call_id="call_1", duration_ms=1234, preview="a.txt\nb.txt", via="tool"),
        ev.UsageUpdated(input_tokens=1000, output_tokens=200, cached_input_tokens=0, total_tokens=1200, by_model={}),
        delta("Done.", "m2"),
        completed("Done.", "m2"),
        ev.RunCompleted(result="Done.", usage=USAGE, digest="d"),
    ) == (
        "› fix it\n"
        "I look first.\n"
        "● List files in .\n"
        "✓ List files in . · 1.2 s\n"
        "    a.txt\n"
        "    b.txt\n"
        "Done.\n"
        "✓ completed · 1,200 tokens\n"
    )


def test_status_is_what_happens_now():
    renderer = Renderer()
    (status,) = renderer.event(*events(ev.RunStatusChanged(status="running", phase="working", text="Reading 3 files…")))
    assert status == Status("Reading 3 files…")
    started = ev.ToolStarted(tool_call_id="c", tool="t", label="Build", args_preview={}, args_digest="d", attempt=1)
    list(renderer.event(*events(started)))
    (status,) = renderer.event(*events(ev.ToolProgress(tool_call_id="c", text="linking", fraction=0.4)))
    assert status == Status("Build: 40% linking", goes_on=True)
    (status,) = renderer.event(*events(ev.ToolProgress(tool_call_id="c", text="one\ntwo\n")))
    assert status == Status("Build: two", goes_on=True)


def test_one_message_speaks_at_a_time():
    said = shown(
        delta("one ", "m1"), delta("UNO ", "m2"), delta("two", "m1"), completed("one two", "m1"), delta("DUE", "m2"),
        completed("UNO DUE", "m2"),
    )  # fmt: skip
    assert said == "one two\nUNO DUE\n"


def test_a_message_that_ends_while_another_speaks_is_not_lost_in_its_line():
    said = shown(
        delta("one ", "m1"), delta("UNO", "m2"), completed("UNO", "m2"), delta("two", "m1"), completed("one two")
    )
    assert said == "one \nUNO\ntwo\n"


def test_a_message_without_deltas_is_shown_whole_and_one_joined_late_not_twice():
    assert shown(completed("all of it")) == "all of it\n"
    assert shown(delta("end of it"), completed("the end of it")) == "end of it\n"


def test_thinking_aloud_is_not_part_of_the_answer():
    assert shown(ev.ReasoningDelta(message_id="m1", text="hm"), delta("yes"), completed("yes")) == "hm\nyes\n"


def test_interrupted_superseded_cut_off():
    assert shown(delta("par"), completed("par", state="interrupted")) == "par\n(interrupted)\n"
    assert "longest length" in shown(completed("x", stop_reason="max_tokens"))
    assert shown(
        delta("no"), ev.MessageSuperseded(message_id="m1", reason="retry"), delta("yes", "m2"), completed("yes", "m2")
    ) == "no\n(the answer above is withdrawn: retry)\nyes\n"  # fmt: skip
    assert shown(ev.MessageSuperseded(message_id="m9", reason="retry")) == ""


def test_an_approval_shows_its_diff_and_its_end():
    renderer = Renderer()
    diff = "--- a\n+++ b\n@@ -1 +1 @@\n-old\n+new\x1b[2J\n same"
    parts = list(renderer.event(*events(approval(preview=ev.Preview(kind="diff", data=diff), risk="high"))))
    assert [(part.text, part.style) for part in parts] == [
        ("? Edit notes.txt  [edit_file · high risk]", "bad"),
        ("    --- a", "head"),
        ("    +++ b", "head"),
        ("    @@ -1 +1 @@", "hunk"),
        ("    -old", "remove"),
        ("    +new␛[2J", "add"),
        ("     same", "dim"),
        ("    expires in 1 h, then: deny", "dim"),
    ]
    assert list(renderer.asks) == ["ap_1"]
    resolved = ev.ApprovalResolved(
        approval_id="ap_1",
        tool_call_id="call_1",
        decision="denied",
        by="ann",
        edited=False,
        args_digest="d",
        reason="no",
    )
    assert shown(resolved, renderer=renderer) == "  denied by ann: no\n"
    assert renderer.asks == {}


def test_an_approval_without_a_preview_shows_every_argument():
    said = shown(approval(reason="unknown_outcome"))
    assert "it may have happened already" in said
    assert "    path: notes.txt\n    new:\n      a\n      b\n" in said


def test_a_question_with_choices():
    renderer = Renderer()
    ask = ev.InputRequired(
        input_id="in_1",
        question="Which?",
        choices=["red", "blue"],
        expires_at="2026-01-01T00:00:00.000Z",
        expires_in_s=90,
    )
    assert shown(ask, renderer=renderer) == "? Which?\n    1  red\n    2  blue\n    expires in 1 min 30 s\n"
    assert (
        shown(ev.InputResolved(input_id="in_1", by="ann", answer="red"), renderer=renderer)
        == "  answered by ann: red\n"
    )
    assert not renderer.asks


def test_the_life_of_a_correction():
    ids = {"correction_id": "cmd_1", "text": "be brief"}
    renderer = Renderer()
    assert shown(
        ev.CorrectionAccepted(mode="next_step", **ids),
        ev.CorrectionHeld(reason="approval", **ids),
        ev.CorrectionApplied(step_id="s", preempted=True, replanned=False, **ids),
        ev.CorrectionReturned(reason="cancelled", **ids),
        ev.CorrectionRevoked(**ids),
        renderer=renderer,
    ) == (
        "↪ correction accepted (at the next step): be brief\n"
        "↪ correction held (approval): be brief\n"
        "↪ correction applied (interrupted the model): be brief\n"
        "↩ correction NOT used (cancelled): be brief\n"
        "↩ correction taken back: be brief\n"
    )
    assert renderer.last_correction == "cmd_1"


def test_failures_and_retries_of_a_call():
    started = ev.ToolStarted(tool_call_id="c", tool="pay", label="Pay", args_preview={}, args_digest="d", attempt=2)
    assert shown(
        started,
        ev.ToolRetrying(tool_call_id="c", attempt=2, max_attempts=3, wait_s=0.5, code="timeout"),
        ev.ToolPending(tool_call_id="c", expires_at="2026-01-01T00:00:00.000Z"),
        ev.ToolFailed(tool_call_id="c", code="timeout", text="it took too long", outcome="unknown", retryable=False),
    ) == (
        "● Pay (attempt 2)\n"
        "↻ Pay: timeout; attempt 2 of 3 in 500 ms\n"
        "● Pay goes on in the background\n"
        "✗ Pay: it took too long (timeout)\n"
        "    its outcome is unknown: it may have happened\n"
    )


def test_endings_tell_the_truth_about_effects():
    effects = [
        ev.Effect(tool_call_id="a", tool="pay", outcome="unknown"),
        ev.Effect(tool_call_id="b", tool="mail", outcome="not_started"),
    ]
    renderer = Renderer()
    cancelled = ev.RunCancelled(
        by="ann", mode="now", last_seq=7, effects=effects, usage=USAGE, digest="d", reason="wrong"
    )
    assert shown(cancelled, renderer=renderer) == (
        "■ cancelled by ann: wrong · 1,200 tokens\n"
        "    pay: OUTCOME UNKNOWN - it may have happened\n"
        "    mail: not started\n"
    )
    assert renderer.ended == "run.cancelled"
    failed = ev.RunFailed(
        code="model_denied",
        text="no key",
        retryable=False,
        error_id="err_1",
        completed=["step one"],
        effects=[],
        usage=USAGE,
        digest="d",
        resume=ev.Resume(text="set a key"),
    )
    assert shown(failed) == "✗ failed: no key (model_denied · err_1)\n    done: step one\n    set a key\n"


def test_a_scripted_model_is_labelled():
    tokens = ev.ModelUsage(input_tokens=1, output_tokens=1, cached_input_tokens=0, total_tokens=2)
    usage = msgspec.structs.replace(USAGE, by_model={"scripted": tokens})
    assert shown(ev.RunCompleted(result=None, usage=usage, digest="d")) == (
        "✓ completed · 1,200 tokens · scripted: no real model answered\n"
    )


def test_a_result_that_was_not_said_is_shown():
    assert shown(ev.RunCompleted(result={"a": 1}, usage=USAGE, digest="d")).startswith('{\n  "a": 1\n}\n')


def test_long_previews_are_cut_and_say_so():
    said = shown(ev.ToolCompleted(tool_call_id="c", duration_ms=5, preview="x\n" * 20, via="cache"))
    assert said.startswith("✓ a call · 5 ms · cache\n")
    assert said.endswith("    … 12 more lines\n")


def test_every_event_type_shows_no_control_character():
    """Also those with hostile text in every field."""
    evil = "\x1b]0;x\x07\u202e"

    for kind in ev.EVENTS.values():
        payload = _filled(kind, evil)
        for part in Renderer().event(*events(payload)):
            text = getattr(part, "text", "")
            assert "\x1b" not in text, kind
            assert "\u202e" not in text, kind


def _filled(kind, text):
    values = {}
    for field in msgspec.structs.fields(kind):
        values[field.encode_name] = _value(field.type, text)
    return msgspec.convert(values, kind)


def _value(kind, text):
    info = msgspec.inspect.type_info(kind)
    return _of(info, text)


def _of(info, text):
    m = msgspec.inspect
    match info:
        case m.StrType() | m.AnyType():
            return text
        case m.LiteralType(values=values):
            return values[0]
        case m.BoolType():
            return True
        case m.IntType() | m.FloatType():
            return 3
        case m.ListType(item_type=item):
            return [_of(item, text)]
        case m.DictType(value_type=value):
            return {text: _of(value, text)}
        case m.UnionType(types=types):
            return _of(next(each for each in types if not isinstance(each, m.NoneType)), text)
        case m.StructType(fields=fields):
            return {field.encode_name: _of(field.type, text) for field in fields}
    raise AssertionError(info)


def test_an_unknown_event_type_is_shown_by_its_name():
    raw = b'{"v":1,"seq":1,"run_id":"r","type":"x.new","ts":"2026-01-01T00:00:00.000Z","payload":{}}'
    assert screen(Renderer().event(decode_event(raw))) == "· x.new\n"


def test_what_waited_before_the_replay_is_asked_when_caught_up():
    item = msgspec.to_builtins(approval()) | {"kind": "approval", "expires_in_s": 12.0}
    frame = RunAttached(
        command_id="c",
        run_id="run_1",
        thread_id="t",
        epoch="e",
        head_seq=9,
        first_seq=1,
        status="waiting",
        can=[],
        pending=[item, {"kind": "tool", "tool_call_id": "c"}],
    )
    renderer = Renderer()
    assert screen(renderer.attached(frame)) == ""
    assert "expires in 12.0 s" in screen(renderer.caught_up())
    assert list(renderer.asks) == ["ap_1"]
    # Attached again after a reconnect: it is not asked twice.
    list(renderer.attached(frame))
    assert screen(renderer.caught_up()) == ""


@pytest.mark.parametrize("upto", [2, 3, 4])
def test_a_reset_shows_the_run_as_it_is(upto):
    log = events(
        ev.RunStarted(agent="copilot", thread_id="t"),
        delta("Hello "),
        approval(),
        delta("world"),
        completed("Hello world"),
        ev.RunCompleted(result="Hello world", usage=USAGE, digest="d"),
    )
    view = fold_all(log[:upto])
    renderer = Renderer()
    reset = RunReset(
        run_id="run_1", reason="epoch", epoch="e2", snapshot=view_to_builtins(view), snapshot_seq=view.cursor.seq
    )
    said = screen(renderer.reset(reset))
    assert said.startswith("--- the server starts over (epoch)")
    rest = screen(itertools.chain.from_iterable(renderer.event(event) for event in log[upto:]))
    assert ("? Edit notes.txt" in said) == (upto >= 3)
    assert rest.endswith("✓ completed · 1,200 tokens\n")
    assert renderer.ended == "run.completed"
