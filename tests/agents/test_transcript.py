"""The conversation as a fold of the journal."""

import msgspec

from midstream.agents.conversation import AssistantMessage, Call, Media, Result, Text, UserMessage, encode_message
from midstream.agents.journal import journal_record
from midstream.agents.transcript import Transcript, TurnRecord, input_parts, input_text
from midstream.log import JournalRecord
from midstream.runs.contract import CallRecord, CorrectionRecord, Principal, ResultRecord, StartRecord
from midstream_protocol.commands import ImageBlock, TextBlock

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


def said(message_id, *parts, stop_reason="end_turn"):
    return [
        JournalRecord(kind="message", key=message_id, data=encode_message(AssistantMessage(parts=parts))),
        journal_record("turn", message_id, TurnRecord(stop_reason=stop_reason)),
    ]


def read(*journals):
    transcript = Transcript()
    for journal in journals:
        transcript.read(journal)
    return transcript


def results(messages):
    return [part for message in messages for part in message.parts if isinstance(part, Result)]


def test_a_call_and_its_answer():
    transcript = read([start(), *said("m", CALL, stop_reason="tool_use")])
    assert transcript.unanswered() == [CALL]
    transcript.answered("call_1", ResultRecord(ok=True, value={"sum": 2}))
    assert transcript.unanswered() == []
    assert results(transcript.messages()) == [Result(call_id="call_1", provider_id="toolu_1", content='{"sum":2}')]
    assert (transcript.turns, transcript.calls, transcript.stop_reason) == (1, 1, "tool_use")


def test_the_first_result_of_a_call_counts():
    journal = [
        start(),
        *said("m", CALL),
        journal_record("result", "call_1", ResultRecord(ok=True, value="first")),
        journal_record("result", "call_1", ResultRecord(ok=True, value="second")),
        journal_record("result", "call_9", ResultRecord(ok=True, value="of no call")),
    ]
    assert [result.content for result in results(read(journal).messages())] == ["first"]


def test_an_edit_is_told_from_the_journal_too():
    journal = [
        start(),
        *said("m", CALL),
        journal_record("call", "call_1", CallRecord(tool="add", args={"a": 1})),
        journal_record("call", "call_1", CallRecord(tool="add", args={"a": 2})),
        journal_record("result", "call_1", ResultRecord(ok=True, value="x")),
    ]
    [result] = results(read(journal).messages())
    assert result.content == '[The user changed the arguments of this call to {"a":2}]\nx'


def test_a_failure_and_no_output():
    transcript = read([start(), *said("m", CALL)])
    transcript.answered("call_1", ResultRecord(ok=False, error="denied", text="No."))
    [result] = results(transcript.messages())
    assert (result.content, result.failed) == ("denied: No.", True)
    transcript = read([start(), *said("m", CALL)])
    transcript.answered("call_1", ResultRecord(ok=True, value=""))
    assert results(transcript.messages())[0].content == "(no output)"


def test_a_run_that_was_cut_off_does_not_poison_the_next():
    transcript = read([start(), *said("m", Text(text="I will"), CALL)], [start("And now?")])
    assert transcript.last is None
    *_, message = transcript.messages()
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
    assert transcript.messages()[-1] == UserMessage(parts=(Text(text="More!"),))


def test_a_model_always_has_something_to_answer():
    interrupted = read([start(), *said("m", Text(text="Once"), stop_reason="interrupted")])
    assert interrupted.messages()[-1] == UserMessage(parts=(Text(text="Go on."),))
    paused = read([start(), *said("m", Text(text="Once"), stop_reason="pause_turn")])
    assert isinstance(paused.messages()[-1], AssistantMessage)
    assert paused.messages(note="Hurry.")[-1] == UserMessage(parts=(Text(text="Hurry."),))


def test_blocks_of_an_input():
    blocks = [TextBlock(text="Look"), ImageBlock(media_type="image/png", url="https://example.org/x.png")]
    assert input_parts(blocks)[1] == Media(kind="image", media_type="image/png", url="https://example.org/x.png")
    assert input_text(blocks) == "Look"
    assert msgspec.json.decode(start().data)["input"] == "Go."
