"""Conversations for the tests of the budget: any that can be made, and what every request must keep to."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from hypothesis import strategies as st

from midstream.agents.budget.contract import Entry, Kind
from midstream.agents.budget.tokens import message_tokens
from midstream.agents.conversation import (
    AssistantMessage,
    AssistantPart,
    Call,
    Media,
    Message,
    Opaque,
    Reasoning,
    Result,
    Text,
    UserMessage,
    UserPart,
    calls_of,
)


def call(call_id: str, **args: object) -> Call:
    return Call(id=call_id, provider_id=f"toolu_{call_id}", tool="look", args=args or {"at": "sky"})


def result(call_id: str, content: str = "blue") -> Result:
    return Result(call_id=call_id, provider_id=f"toolu_{call_id}", content=content)


def user(kind: Kind, *parts: UserPart | str) -> Entry:
    return Entry(message=UserMessage(parts=tuple(map(_text, parts))), kind=kind)


def model(*parts: AssistantPart | str, kind: Kind = "turn") -> Entry:
    return Entry(message=AssistantMessage(parts=tuple(map(_text, parts))), kind=kind)


def _text(part):
    return Text(text=part) if isinstance(part, str) else part


def turn(name: str, *contents: str) -> list[Entry]:
    """An assistant message with a call for each of these results, and the results."""
    ids = [f"{name}_{number}" for number in range(len(contents))]
    answers = [user("result", result(one, content)) for one, content in zip(ids, contents, strict=True)]
    return [model(f"Looking: {name}", *map(call, ids)), *answers]


def check_valid(messages: Sequence[Message]) -> None:
    """A model can be shown it: the user begins, they alternate, every call is answered once and at once, and first."""
    assert messages
    assert isinstance(messages[0], UserMessage)
    assert all(message.parts for message in messages)
    for before, after in pairwise(messages):
        assert type(before) is not type(after)
    assert not calls_of(messages[-1])
    for index, message in enumerate(messages):
        if isinstance(message, UserMessage):
            owed = [one.id for one in calls_of(messages[index - 1])] if index else []
            assert [part.call_id for part in message.parts if isinstance(part, Result)] == owed
            assert all(isinstance(part, Result) for part in message.parts[: len(owed)])


def said(messages: Iterable[Message]) -> list[UserPart]:
    """What users said, without results, in order."""
    return [
        part
        for message in messages
        if isinstance(message, UserMessage)
        for part in message.parts
        if not isinstance(part, Result)
    ]


def results(messages: Iterable[Message]) -> dict[str, str]:
    return {part.call_id: part.content for message in messages for part in message.parts if isinstance(part, Result)}


def size(messages: Iterable[Message]) -> int:
    return sum(map(message_tokens, messages))


def is_part(few: Sequence[object], many: Sequence[object]) -> bool:
    """Whether all of `few` are in `many`, in that order."""
    rest = iter(many)
    return all(any(one == other for other in rest) for one in few)


# Any conversation. Its texts are large enough to matter in a window of some thousand tokens.

_long = st.builds(
    lambda word, times: word * times,
    st.sampled_from(["word ", "x", "数据", "{'k': 1} ", "Пример ", "🙂", "0123456789", "a\n"]),
    st.integers(0, 1_500),
)
_short = st.text(max_size=8)
_texts = (_short | _long).map(lambda text: Text(text=text))
_media = st.sampled_from(
    [
        Media(kind="image", media_type="image/png", data="QQ=="),
        Media(kind="file", media_type="text/plain", data="QUFB" * 50),
    ]
)
_kinds = st.sampled_from(["history", "request", "brief", "correction", "note"])
_thoughts = st.sampled_from([Reasoning(raw={"thinking": "hm " * 20, "signature": "s" * 400}), Opaque(raw={"b": [2]})])


@st.composite
def conversations(draw: st.DrawFn, *, max_turns: int = 12) -> list[Entry]:
    """Messages of all kinds and sizes; calls in parallel, unanswered, answered twice, late, or never made."""
    entries: list[Entry] = []
    calls: list[str] = []
    for number in range(draw(st.integers(1, max_turns))):
        for _ in range(draw(st.integers(0, 2))):
            parts: list[UserPart] = draw(st.lists(_texts | _media, min_size=1, max_size=2))
            if calls and draw(st.booleans()):
                parts.append(result(draw(st.sampled_from(calls)), draw(_short)))
            entries.append(user(draw(_kinds), *parts))
        ids = [f"call_{number}_{index}" for index in range(draw(st.integers(0, 4)))]
        words: list[AssistantPart] = draw(st.lists(_texts | _thoughts, max_size=2))
        kind: Kind = draw(st.sampled_from(["history", "turn"]))
        entries.append(model(*words, *map(call, ids), kind=kind))
        answered = draw(st.lists(st.sampled_from(ids), max_size=len(ids) + 1)) if ids else []
        entries += [user("result", result(one, draw(_short | _long))) for one in answered]
        calls += ids
    return entries
