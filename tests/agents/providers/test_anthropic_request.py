"""What the API would refuse never leaves: one refused message would poison its conversation."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.agents.conversation import (
    AssistantMessage,
    Call,
    Media,
    Message,
    Opaque,
    Reasoning,
    Result,
    Text,
    UserMessage,
    repaired,
)
from midstream.agents.providers.anthropic_request import wire_messages
from midstream.agents.providers.contract import BadModelRequest


def user(*parts: Text | Media | Result) -> UserMessage:
    return UserMessage(parts=parts)


def assistant(*parts: Text | Reasoning | Call | Opaque) -> AssistantMessage:
    return AssistantMessage(parts=parts)


def call(**changes: Any) -> Call:
    fields: dict[str, Any] = {"id": "call_1", "provider_id": "toolu_1", "tool": "look", "args": {"at": "sky"}}
    return Call(**{**fields, **changes})


def result(**changes: Any) -> Result:
    return Result(**{"call_id": "call_1", "provider_id": "toolu_1", "content": "blue", **changes})


def only_block(part: Text | Media | Result | Reasoning | Call | Opaque) -> Any:
    message: Message = user(part) if isinstance(part, Text | Media | Result) else assistant(part)
    ((block,),) = (one["content"] for one in wire_messages([message]))
    return block


def test_a_turn_with_tools() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    assert wire_messages(
        [user(Text(text="Hi")), assistant(Reasoning(raw=thought), Text(text="I look."), call()), user(result())]
    ) == [
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {
            "role": "assistant",
            "content": [
                thought,
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "sky"}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "blue"}]},
    ]


def test_a_failed_result_says_so_and_something() -> None:
    assert only_block(result(failed=True, content="")) == {
        "type": "tool_result",
        "tool_use_id": "toolu_1",
        "content": "(no output)",
        "is_error": True,
    }
    assert only_block(result(content=""))["content"] == ""


def test_a_call_that_was_no_json_goes_back_as_an_object() -> None:
    assert only_block(call(args=None, raw='{"at": '))["input"] == {"INVALID_JSON": '{"at": '}
    assert only_block(call(args=None))["input"] == {}


def test_ids_and_names_of_another_provider_are_made_fit() -> None:
    odd = "chat/42:é"
    block = only_block(call(provider_id=odd, tool="files.list é"))
    assert block["id"] == "call_1" == only_block(result(provider_id=odd))["tool_use_id"]
    assert block["name"] == "files_list__"
    assert only_block(call(tool=""))["name"] == "unnamed"
    assert len(only_block(call(tool="x" * 500))["name"]) == 128


def test_unsigned_thinking_is_left_out() -> None:
    cut = Reasoning(raw={"type": "thinking", "thinking": "Hm", "signature": ""})
    assert wire_messages([assistant(cut, Text(text="a")), user(Text(text="b"))])[0]["content"] == [
        {"type": "text", "text": "a"}
    ]
    hidden = Reasoning(raw={"type": "redacted_thinking", "data": "x"})
    assert only_block(hidden) == hidden.raw


def test_blank_texts_are_left_out_and_their_neighbours_joined() -> None:
    assert wire_messages([user(Text(text="a")), assistant(Text(text=" \n")), user(Text(text="b"), Text(text=""))]) == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    ]


def test_a_last_assistant_text_ends_without_white_space() -> None:
    assert wire_messages([assistant(Text(text="so far \n"))])[0]["content"] == [{"type": "text", "text": "so far"}]
    assert wire_messages([assistant(Text(text="so far ")), user(Text(text="go"))])[0]["content"][0]["text"] == "so far "


@pytest.mark.parametrize(
    ("media", "block"),
    [
        (
            Media(kind="image", media_type="image/png", data="QQ=="),
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}},
        ),
        (
            Media(kind="image", media_type="image/png", url="https://x.test/a.png"),
            {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
        ),
        (
            Media(kind="file", media_type="application/pdf", data="QQ=="),
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "QQ=="}},
        ),
        (
            Media(kind="file", media_type="text/csv", data=base64.b64encode(b"a,b").decode()),
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a,b"}},
        ),
    ],
)
def test_media(media: Media, block: dict[str, Any]) -> None:
    assert only_block(media) == block


@pytest.mark.parametrize(
    "media",
    [
        Media(kind="file", media_type="application/zip", data="QQ=="),
        Media(kind="file", media_type="text/plain", data="!"),
        Media(kind="file", media_type="text/plain", data="/w=="),
    ],
)
def test_media_that_cannot_be_sent(media: Media) -> None:
    with pytest.raises(BadModelRequest):
        wire_messages([user(media)])


_texts = st.sampled_from(["", " ", "a", "b "]).map(lambda text: Text(text=text))
_ids = st.sampled_from(["call_1", "call_2"])
_users = st.lists(_texts | st.builds(lambda i: result(call_id=i, provider_id=i), _ids), max_size=3)
_assistants = st.builds(
    lambda texts, ids: [*texts, *(call(id=i, provider_id=i) for i in ids)],
    st.lists(_texts | st.just(Reasoning(raw={"type": "thinking", "thinking": "x"})), max_size=2),
    st.lists(_ids, unique=True, max_size=2),
)


@given(st.lists(_users.map(lambda parts: user(*parts)) | _assistants.map(lambda parts: assistant(*parts)), max_size=8))
def test_roles_alternate_and_every_call_is_answered_in_the_next_message(messages: list[Message]) -> None:
    out = wire_messages(repaired(messages))
    for before, after in zip([None, *out], [*out, None], strict=True):
        if before is not None and after is not None:
            assert before["role"] != after["role"]
        asked = [one["id"] for one in before["content"] if one["type"] == "tool_use"] if before is not None else []
        told = [one for one in after["content"] if one["type"] == "tool_result"] if after is not None else []
        assert [one["tool_use_id"] for one in told] == asked
        assert after is None or after["content"][: len(told)] == told
        assert after is None or all(one["text"].strip() for one in after["content"] if one["type"] == "text")
