"""`repaired`: whatever happened to a conversation, a model can be shown it."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from midstream.agents.conversation import (
    NOT_RUN,
    AssistantMessage,
    Call,
    Media,
    Message,
    Opaque,
    Reasoning,
    Result,
    Text,
    UserMessage,
    calls_of,
    decode_message,
    encode_message,
    repaired,
)


def call(call_id: str) -> Call:
    return Call(id=call_id, provider_id=f"toolu_{call_id}", tool="look", args={"at": "sky"})


def result(call_id: str, content: str = "blue") -> Result:
    return Result(call_id=call_id, provider_id=f"toolu_{call_id}", content=content)


def not_run(call_id: str) -> Result:
    return Result(call_id=call_id, provider_id=f"toolu_{call_id}", content=NOT_RUN, failed=True)


def user(*parts: Text | Media | Result) -> UserMessage:
    return UserMessage(parts=parts)


def assistant(*parts: Text | Reasoning | Call | Opaque) -> AssistantMessage:
    return AssistantMessage(parts=parts)


def test_a_sound_conversation_is_left_as_it_is() -> None:
    sound: list[Message] = [
        user(Text(text="a")),
        assistant(Text(text="b"), call("1")),
        user(result("1"), Text(text="c")),
    ]
    assert repaired(sound) == sound


def test_a_correction_while_tools_run_comes_after_all_their_results() -> None:
    told: list[Message] = [
        user(Text(text="go")),
        assistant(call("1"), call("2")),
        user(result("2")),
        user(Text(text="stop looking")),
        user(result("1")),
    ]
    assert repaired(told) == [*told[:2], user(result("1"), result("2"), Text(text="stop looking"))]


def test_a_call_without_a_result_is_said_not_to_have_run() -> None:
    assert repaired([assistant(call("1"), call("2")), user(result("2"))]) == [
        assistant(call("1"), call("2")),
        user(not_run("1"), result("2")),
    ]
    assert repaired([assistant(call("1"))]) == [assistant(call("1")), user(not_run("1"))]
    assert repaired([assistant(call("1")), assistant(Text(text="b"))]) == [
        assistant(call("1")),
        user(not_run("1")),
        assistant(Text(text="b")),
    ]


def test_a_result_of_no_call_and_a_second_result_are_dropped() -> None:
    assert repaired([user(result("0"), Text(text="a"))]) == [user(Text(text="a"))]
    assert repaired([assistant(call("1")), user(result("1", "first"), result("1", "second"))])[1] == user(
        result("1", "first")
    )


def test_an_empty_message_between_a_call_and_its_result_does_not_part_them() -> None:
    assert repaired([assistant(call("1")), assistant(), user(), user(result("1"))]) == [
        assistant(call("1")),
        user(result("1")),
    ]


_ids = st.sampled_from(["1", "2", "3"])
_texts = st.text(max_size=5).map(lambda text: Text(text=text))
_media = st.just(Media(kind="image", media_type="image/png", data="QQ=="))
_users = st.lists(_texts | _media | st.builds(result, _ids, st.sampled_from(["x", "y"])), max_size=4).map(
    lambda parts: user(*parts)
)
_assistants = st.builds(
    lambda parts, ids: assistant(*parts, *map(call, ids)),
    st.lists(_texts | st.just(Reasoning(raw={"a": 1})) | st.just(Opaque(raw={"b": [2]})), max_size=2),
    st.lists(_ids, unique=True, max_size=3),
)
_conversations = st.lists(_users | _assistants, max_size=10)


def said_by_users(messages: Sequence[Message]) -> list[object]:
    return [
        part
        for message in messages
        if isinstance(message, UserMessage)
        for part in message.parts
        if not isinstance(part, Result)
    ]


@given(_conversations)
def test_the_invariant_holds_for_every_conversation(messages: list[Message]) -> None:
    out = repaired(messages)
    for number, message in enumerate(out):
        assert message.parts
        before = out[number - 1] if number else None
        owed = [one.id for one in calls_of(before)] if before is not None else []
        if isinstance(message, UserMessage):
            answered = [part.call_id for part in message.parts if isinstance(part, Result)]
            assert answered == owed
            assert all(isinstance(part, Result) for part in message.parts[: len(owed)])
            assert not isinstance(before, UserMessage)
        else:
            assert owed == []
    assert not out or not calls_of(out[-1])


@given(_conversations)
def test_repairing_twice_changes_nothing_more(messages: list[Message]) -> None:
    once = repaired(messages)
    assert repaired(once) == once


@given(_conversations)
def test_nothing_said_is_lost(messages: list[Message]) -> None:
    out = repaired(messages)
    assert said_by_users(out) == said_by_users(messages)
    assert [one for one in out if isinstance(one, AssistantMessage)] == [
        one for one in messages if isinstance(one, AssistantMessage) and one.parts
    ]


@given(_conversations)
def test_a_result_that_came_before_the_next_answer_is_told(messages: list[Message]) -> None:
    owed: dict[str, Call] = {}
    told = {NOT_RUN}
    for message in messages:
        if isinstance(message, AssistantMessage):
            if message.parts:
                owed = {one.id: one for one in calls_of(message)}
        else:
            for part in message.parts:
                if isinstance(part, Result) and part.call_id in owed:
                    del owed[part.call_id]
                    told.add(part.content)
    kept = {part.content for one in repaired(messages) for part in one.parts if isinstance(part, Result)}
    assert told <= kept | {NOT_RUN}


@given(_users | _assistants)
def test_a_message_survives_the_journal(message: Message) -> None:
    assert decode_message(encode_message(message)) == message
