"""The events of one streamed answer of the Messages API → our events and, at the end, the whole message. Pure.

Blocks are told apart by their `index`, so they may interleave. Text goes out at once; a call's input is kept as the
strings that came and parsed once, when the message is complete. A complete JSON object delimits itself, so an input
that parses is whole whatever ended the message; one that does not parse becomes `args=None`.
"""

from collections.abc import Callable
from typing import Any, Final

from midstream.agents.conversation import AssistantPart, Call, Opaque, Reasoning, Text
from midstream.agents.providers.anthropic_citation import citation_in
from midstream.agents.providers.contract import (
    CallOpened,
    Cited,
    Finished,
    ModelEvent,
    ModelFailed,
    Opened,
    ReasoningDelta,
    TextDelta,
    TokenUsage,
)
from midstream.agents.providers.json_values import SAFE_INTEGER, parsed_args, stored, well_formed

# Characters of one message, all blocks together: far above any model's max_tokens, so only a broken server meets it.
MESSAGE_LIMIT_CHARS: Final = 16_777_216

# What a block counts beside its text, so that there is an end to empty ones too.
BLOCK_CHARS: Final = 16_384

# After these a message is whole: a call that was opened and got no input is a call without arguments.
_WHOLE: Final = frozenset({"end_turn", "tool_use", "stop_sequence", "pause_turn"})


class Answer:
    """Feed it each event in order; when `complete`, take `finished()`. Raises `ModelFailed` for a broken sequence."""

    def __init__(self, *, new_call_id: Callable[[], str]) -> None:
        self.complete = False
        self._new_call_id = new_call_id
        self._opened = False
        self._blocks: dict[int, _Block] = {}
        self._usage: dict[str, Any] = {}
        self._stop_reason = ""
        self._room = MESSAGE_LIMIT_CHARS

    def feed(self, event: dict[str, Any]) -> list[ModelEvent]:
        kind = event.get("type")
        if kind == "content_block_delta":
            return self._delta(event)
        if kind == "message_start":
            return self._start(_mapping(event, "message"))
        if kind == "content_block_start":
            return self._open_block(event)
        if kind == "content_block_stop":
            return self._block(event).close()
        if kind == "message_delta":
            self._stop_reason = str(_mapping(event, "delta").get("stop_reason") or self._stop_reason)
            self._count(event.get("usage"))
        elif kind == "message_stop":
            if not self._opened:
                raise _broken("it ended before it began")
            self.complete = True
        # Events of other types are the API's future: its documentation asks to ignore them.
        return []

    def finished(self) -> Finished:
        """The whole message. Only once `complete`."""
        parts: list[AssistantPart] = []
        last = max(self._blocks, default=None)
        calls = False
        for index in sorted(self._blocks):
            block = self._blocks[index]
            calls = calls or isinstance(block, _CallBlock)
            cut = index == last and self._stop_reason not in _WHOLE and bool(self._stop_reason)
            part = block.part(cut=cut)
            if part is not None:
                parts.append(part)
        reason = self._stop_reason or ("tool_use" if calls else "end_turn")
        return Finished(stop_reason=reason, parts=tuple(parts), usage=self._tokens())

    def _start(self, message: dict[str, Any]) -> list[ModelEvent]:
        if self._opened:
            raise _broken("it began twice")
        self._opened = True
        self._count(message.get("usage"))
        return [Opened(model=well_formed(str(message.get("model") or "")), usage=self._tokens())]

    def _open_block(self, event: dict[str, Any]) -> list[ModelEvent]:
        index, raw = event.get("index"), _mapping(event, "content_block")
        if not self._opened or not isinstance(index, int) or index in self._blocks:
            raise _broken("a block began out of order")
        self._take(BLOCK_CHARS + sum(len(value) for value in raw.values() if isinstance(value, str)))
        block: _Block
        match raw.get("type"):
            case "text":
                block = _TextBlock()
                self._blocks[index] = block
                given = raw.get("citations")
                cited = [one for each in given if (one := _cited(each))] if isinstance(given, list) else []
                return [*block.add(str(raw.get("text") or "")), *cited]
            case "tool_use":
                taken = {b.provider_id for b in self._blocks.values() if isinstance(b, _CallBlock)}
                block = _CallBlock(raw, id=self._new_call_id(), taken=taken)
                self._blocks[index] = block
                return [CallOpened(id=block.id, tool=block.tool)]
            case "thinking":
                block = _ThinkingBlock(raw)
            case "redacted_thinking":
                block = _RawBlock(raw, wrap=Reasoning)
            case _:
                block = _RawBlock(raw, wrap=Opaque)
        self._blocks[index] = block
        return []

    def _delta(self, event: dict[str, Any]) -> list[ModelEvent]:
        delta = _mapping(event, "delta")
        self._take(sum(len(value) for value in delta.values() if isinstance(value, str)))
        return self._block(event).delta(delta)

    def _take(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise _broken("it is longer than any model writes")

    def _block(self, event: dict[str, Any]) -> "_Block":
        block = self._blocks.get(event.get("index", -1))
        if block is None:
            raise _broken("it speaks of a block that never began")
        return block

    def _count(self, usage: object) -> None:
        if isinstance(usage, dict):
            self._usage.update({k: v for k, v in usage.items() if isinstance(v, int) and 0 <= v <= SAFE_INTEGER})

    def _tokens(self) -> TokenUsage:
        # The API counts what was read from or written to the cache beside `input_tokens`, we count it in.
        cached = self._usage.get("cache_read_input_tokens", 0)
        written = self._usage.get("cache_creation_input_tokens", 0)
        return TokenUsage(
            input_tokens=self._usage.get("input_tokens", 0) + cached + written,
            output_tokens=self._usage.get("output_tokens", 0),
            cached_input_tokens=cached,
        )


class _Pieces:
    """Text in pieces. A pair of surrogates cut in two by a server is joined, a lone one becomes U+FFFD."""

    def __init__(self) -> None:
        self._out: list[str] = []
        self._held = ""

    def add(self, text: str) -> str:
        text = self._held + text
        self._held = text[-1] if text and "\ud800" <= text[-1] <= "\udbff" else ""
        return self._put(text[: len(text) - len(self._held)])

    def end(self) -> str:
        held, self._held = self._held, ""
        return self._put(held)

    def _put(self, text: str) -> str:
        if text:
            text = well_formed(text)
            self._out.append(text)
        return text

    def joined(self) -> str:
        return "".join(self._out)


class _TextBlock:
    def __init__(self) -> None:
        self._pieces = _Pieces()

    def add(self, text: str) -> list[ModelEvent]:
        shown = self._pieces.add(text)
        return [TextDelta(text=shown)] if shown else []

    def delta(self, delta: dict[str, Any]) -> list[ModelEvent]:
        if delta.get("type") == "citations_delta":
            # Shown to people; the text goes back to the model without them.
            return [cited] if (cited := _cited(delta.get("citation"))) else []
        return self.add(str(delta.get("text") or "")) if delta.get("type") == "text_delta" else []

    def close(self) -> list[ModelEvent]:
        rest = self._pieces.end()
        return [TextDelta(text=rest)] if rest else []

    def part(self, *, cut: bool) -> AssistantPart | None:  # noqa: ARG002
        text = self._pieces.joined()
        return Text(text=text) if text else None


class _CallBlock:
    def __init__(self, raw: dict[str, Any], *, id: str, taken: set[str]) -> None:  # noqa: A002
        self.id = id
        self.tool = well_formed(str(raw.get("name") or ""))
        given = well_formed(str(raw.get("id") or ""))
        self.provider_id = given if given and given not in taken else id
        self._input = raw.get("input")
        self._json: list[str] = []

    def delta(self, delta: dict[str, Any]) -> list[ModelEvent]:
        if delta.get("type") == "input_json_delta":
            self._json.append(str(delta.get("partial_json") or ""))
        return []

    def close(self) -> list[ModelEvent]:
        return []

    def part(self, *, cut: bool) -> AssistantPart | None:
        raw = well_formed("".join(self._json))
        args: dict[str, Any] | None
        if raw.strip():
            args = parsed_args(raw)
        elif self._input:
            # A server that does not stream inputs sends the whole one with the block.
            raw = stored(self._input)
            args = parsed_args(raw)
        else:
            args = None if cut else {}
        return Call(
            id=self.id, provider_id=self.provider_id, tool=self.tool, args=args, raw=raw if args is None else None
        )


class _ThinkingBlock:
    def __init__(self, raw: dict[str, Any]) -> None:
        self._raw = raw
        self._pieces = _Pieces()
        self._pieces.add(str(raw.get("thinking") or ""))

    def delta(self, delta: dict[str, Any]) -> list[ModelEvent]:
        if delta.get("type") == "thinking_delta":
            shown = self._pieces.add(str(delta.get("thinking") or ""))
            return [ReasoningDelta(text=shown)] if shown else []
        if delta.get("type") == "signature_delta":
            self._raw["signature"] = delta.get("signature")
        return []

    def close(self) -> list[ModelEvent]:
        self._pieces.end()
        return []

    def part(self, *, cut: bool) -> AssistantPart | None:  # noqa: ARG002
        raw = {**self._raw, "thinking": self._pieces.joined()}
        stored(raw)
        return Reasoning(raw=raw)


class _RawBlock:
    """A block that is none of ours to read. Deltas of kinds unknown to us append strings and replace the rest."""

    def __init__(self, raw: dict[str, Any], *, wrap: type[Opaque | Reasoning]) -> None:
        self._raw = raw
        self._wrap = wrap
        self._json: list[str] = []

    def delta(self, delta: dict[str, Any]) -> list[ModelEvent]:
        if delta.get("type") == "input_json_delta":
            self._json.append(str(delta.get("partial_json") or ""))
            return []
        for key, value in delta.items():
            before = self._raw.get(key)
            if key != "type":
                self._raw[key] = before + value if isinstance(before, str) and isinstance(value, str) else value
        return []

    def close(self) -> list[ModelEvent]:
        return []

    def part(self, *, cut: bool) -> AssistantPart | None:  # noqa: ARG002
        if self._json:
            self._raw["input"] = parsed_args(well_formed("".join(self._json))) or {}
        stored(self._raw)
        return self._wrap(raw=self._raw)


_Block = _TextBlock | _CallBlock | _ThinkingBlock | _RawBlock


def _cited(raw: object) -> Cited | None:
    data = citation_in(raw)
    return Cited(data=data) if data is not None else None


def _mapping(event: dict[str, Any], key: str) -> dict[str, Any]:
    value = event.get(key)
    if not isinstance(value, dict):
        raise _broken(f"an event has no {key}")
    return value


def _broken(why: str) -> ModelFailed:
    return ModelFailed(f"The model's answer makes no sense: {why}.")
