"""The conversation as a fold of the journal."""

import msgspec

from midstream.agents.conversation import (
    AssistantMessage,
    Call,
    Media,
    Result,
    Text,
    UserMessage,
    encode_message,
    repaired,
)
from midstream.agents.history import history, request
from midstream.agents.journal import journal_record
from midstream.agents.records import (
    NoteRecord,
    OutcomeRecord,
    PlanRecord,
    ResumedRecord,
    StageEndRecord,
    StageRecord,
    TurnRecord,
)
from midstream.agents.transcript import Transcript, input_parts, input_text
from midstream.log import JournalRecord
from midstream.runs.contract import CallRecord, CorrectionRecord, Principal, ResultRecord, StartRecord
from midstream_protocol.commands import ImageBlock, TextBlock
from midstream_protocol.events import Todo

CALL = Call(id="call_1", provider_id="toolu_1", tool="add", args={"a": 1})


def start(text="Go."):
    return journal_record(
        "start",
        "run_1",
        StartRecord(
            run_id="run_1",
            thread_id="t",
            agent="x",
            principal=Principal(id="p", name="P"),
            input=text,
            secret="00",
            created_ms=0,
        ),
    )


def said(message_id, *parts, stop_reason="end_turn", **of):
    return [
        JournalRecord(kind="message", key=message_id, data=encode_message(AssistantMessage(parts=parts))),
        journal_record("turn", message_id, TurnRecord(stop_reason=stop_reason, **of)),
    ]


def correction(correction_id, text):
    return journal_record("correction", correction_id, CorrectionRecord(text=text, message_id="m"))


def in_short(messages):
    return [("you" if isinstance(m, UserMessage) else "it", " | ".join(p.text for p in m.parts)) for m in messages]


def stage(key, brief="Your step.", *, todo="a", heard=()):
    record = StageRecord(todo_id=todo, agent="x", attempt=1, step_id="s", brief=brief, heard=heard)
    return journal_record("stage", key, record)


def read(*journals):
    """The transcript of the last run, after those before it."""
    *earlier, journal = journals
    transcript = Transcript(before=[*history(earlier), *request(journal)])
    transcript.read(journal)
    return transcript


def told(transcript, **options):
    """What the model would be given."""
    return repaired(entry.message for entry in transcript.entries(**options))


def results(messages):
    return [part for message in messages for part in message.parts if isinstance(part, Result)]


def test_a_call_and_its_answer():
    transcript = read([start(), *said("m", CALL, stop_reason="tool_use")])
    assert transcript.unanswered() == [CALL]
    transcript.answered("call_1", ResultRecord(ok=True, value={"sum": 2}))
    assert transcript.unanswered() == []
    assert results(told(transcript)) == [Result(call_id="call_1", provider_id="toolu_1", content='{"sum":2}')]
    assert (transcript.turns, transcript.used, transcript.stop_reason) == (1, 0, "tool_use")


def test_the_first_result_of_a_call_counts():
    journal = [
        start(),
        *said("m", CALL),
        journal_record("result", "call_1", ResultRecord(ok=True, value="first")),
        journal_record("result", "call_1", ResultRecord(ok=True, value="second")),
        journal_record("result", "call_9", ResultRecord(ok=True, value="of no call")),
    ]
    assert [result.content for result in results(told(read(journal)))] == ["first"]


def test_an_edit_is_told_from_the_journal_too():
    journal = [
        start(),
        *said("m", CALL),
        journal_record("call", "call_1", CallRecord(tool="add", args={"a": 1})),
        journal_record("call", "call_1", CallRecord(tool="add", args={"a": 2})),
        journal_record("result", "call_1", ResultRecord(ok=True, value="x")),
    ]
    [result] = results(told(read(journal)))
    assert result.content == '[The user changed the arguments of this call to {"a":2}]\nx'


def test_a_failure_and_no_output():
    transcript = read([start(), *said("m", CALL)])
    transcript.answered("call_1", ResultRecord(ok=False, error="denied", text="No."))
    [result] = results(told(transcript))
    assert (result.content, result.failed) == ("denied: No.", True)
    transcript = read([start(), *said("m", CALL)])
    transcript.answered("call_1", ResultRecord(ok=True, value=""))
    assert results(told(transcript))[0].content == "(no output)"


def test_a_run_that_was_cut_off_does_not_poison_the_next():
    transcript = read([start(), *said("m", Text(text="I will"), CALL)], [start("And now?")])
    assert transcript.last is None
    *_, message = told(transcript)
    assert isinstance(message, UserMessage)
    assert isinstance(message.parts[0], Result)
    assert message.parts[1] == Text(text="And now?")


def test_a_correction_ends_what_was_said_before_it():
    journal = [
        start(),
        *said("m", Text(text="The end.")),
        journal_record("correction", "c", CorrectionRecord(text="More!", message_id="msg_c")),
    ]
    transcript = read(journal)
    assert transcript.last is None
    assert told(transcript)[-1] == UserMessage(parts=(Text(text="More!"),))


def test_a_model_always_has_something_to_answer():
    interrupted = read([start(), *said("m", Text(text="Once"), stop_reason="interrupted")])
    assert told(interrupted)[-1] == UserMessage(parts=(Text(text="Go on."),))
    paused = read([start(), *said("m", Text(text="Once"), stop_reason="pause_turn")])
    assert isinstance(told(paused)[-1], AssistantMessage)
    assert told(paused, note="Hurry.")[-1] == UserMessage(parts=(Text(text="Hurry."),))


def test_blocks_of_an_input():
    blocks = [TextBlock(text="Look"), ImageBlock(media_type="image/png", url="https://example.org/x.png")]
    assert input_parts(blocks)[1] == Media(kind="image", media_type="image/png", url="https://example.org/x.png")
    assert input_text(blocks) == "Look"
    assert msgspec.json.decode(start().data)["input"] == "Go."


def test_a_stage_has_its_own_words_only():
    journal = [
        start(),
        stage("st_1", "First."),
        stage("st_2", "Second."),
        *said("m1", Text(text="One."), stage="st_1"),
        *said("m2", CALL, stage="st_2", stop_reason="tool_use"),
        *said("m3", Text(text="More."), stage="st_1"),
        journal_record("result", "call_1", ResultRecord(ok=True, value="x")),
        journal_record("note", "n", NoteRecord(kind="tool_limit", text="Go on.", stage="st_2")),
    ]
    first = Transcript(stage="st_1", before=request(journal))
    first.read(journal)
    assert in_short(told(first)[:-1]) == [("you", "Go. | First."), ("it", "One."), ("it", "More.")]
    assert (first.turns, first.partial, first.renewals) == (2, "More.", 0)
    second = Transcript(stage="st_2", before=request(journal))
    second.read(journal)
    assert second.last is None
    assert (second.turns, second.used, second.renewals) == (1, 0, 1)
    kinds = [entry.kind for entry in second.entries()]
    assert kinds == ["request", "brief", "turn", "result", "note"]


def test_a_stage_hears_a_correction_where_it_was_answered():
    journal = [
        start(),
        stage("st_1", heard=("c0",)),
        correction("c0", "Zero!"),
        correction("c1", "One!"),
        *said("m1", Text(text="Before."), stage="st_1"),
        correction("c2", "Two!"),
        *said("m2", Text(text="After."), stage="st_1", heard=("c1",)),
    ]
    transcript = Transcript(stage="st_1", before=request(journal))
    transcript.read(journal)
    # What no answer has covered is told again by whoever keeps the corrections.
    assert in_short(told(transcript)[:-1]) == [
        ("you", "Go. | Your step."),
        ("it", "Before."),
        ("you", "One!"),
        ("it", "After."),
    ]
    assert transcript.heard == {"c0", "c1"}
    transcript.corrected("c1", "One!")
    transcript.corrected("c2", "Two!")
    assert in_short(told(transcript))[-1] == ("you", "Two!")
    assert transcript.fresh() == ("c2",)


def test_calls_that_a_limit_refused_are_not_counted():
    refused = ResultRecord(ok=False, error="budget_exhausted", text="x")
    two = [CALL, Call(id="call_2", provider_id="toolu_2", tool="add", args={})]
    journal = [
        start(),
        *said("m", *two, stop_reason="tool_use"),
        journal_record("result", "call_2", refused),
        journal_record("result", "call_1", ResultRecord(ok=True, value=1)),
    ]
    transcript = read(journal)
    assert (transcript.used, transcript.refused) == (1, True)
    transcript.noted(NoteRecord(kind="tool_limit", text="Go on."))
    assert (transcript.used, transcript.refused, transcript.renewals) == (0, False, 1)


def plan(*todos):
    listed = tuple(Todo(id=each, title=each.upper(), agent="x", status="pending") for each in todos)
    return journal_record("plan", "1", PlanRecord(todos=listed))


def end(key, text, *, ok=True, verdict="go"):
    return journal_record("stage_end", key, StageEndRecord(ok=ok, text=text, verdict=verdict))


PLANNED = [
    start(),
    plan("a", "b"),
    stage("st_1"),
    *said("m1", Text(text="A long way."), stage="st_1"),
    end("st_1", "Came to a."),
    correction("c", "In French!"),
]


def test_a_planned_run_is_remembered_by_what_it_came_to():
    journal = [*PLANNED, journal_record("outcome", "", OutcomeRecord(result={"answer": 1}))]
    assert in_short(told(read(journal, [start("And now?")]))) == [
        ("you", "Go. | In French!"),
        ("it", '{"answer":1}'),
        ("you", "And now?"),
    ]


def test_a_planned_run_that_failed_is_remembered_by_its_steps():
    journal = [*PLANNED, stage("st_2", todo="b"), end("st_2", "Nothing.", ok=False, verdict="abort")]
    remembered = in_short(told(read(journal, [start("And now?")])))
    assert remembered[1] == ("it", "[That was not finished. What it came to until then:]\n\n## A\nCame to a.")


def test_a_run_that_goes_on_is_asked_what_the_one_before_was_asked():
    kept = ResumedRecord(asked=(UserMessage(parts=(Text(text="Compare."),)),), ends={})
    journal = [start("Go on."), journal_record("resumed", "run_0", kept)]
    assert in_short(told(read(journal))) == [("you", "Compare. | Go on.")]
    assert [entry.kind for entry in request(journal)] == ["request", "request"]
