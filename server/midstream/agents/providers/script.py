"""The script of a scripted model: its form, its checks, and which turn answers a conversation. Pure but for `load`.

```yaml
loop: true                      # after the last turn comes the first; otherwise the conversation ends in an error
turns:
  - steps:
      - text: Let me look at the folder.
        by: word                # or char; or instead of `text`: chunks: ["Let me ", "look"]
        delay_s: 0.05           # before each piece
      - call: {tool: list_files, args: {path: "."}}
  - match: {last_user_contains: weather}      # played whenever the newest message says so, and takes no turn
    steps:
      - error: {type: overloaded, times: 1}   # the first try fails, the second goes on with the next step
      - text: Sunny.
agents:                         # turns of their own for the agents named here; all others play the turns above
  planner:
    turns:
      - steps: [{answer: {todos: [{title: Look it up, agent: research}, {title: Write it, agent: writing}]}}]
  research:
    turns:
      - match: {user_contains: "step 2 of 3", turn: 0}     # anywhere in the conversation; only the first turn
        steps: [{text: Looked again.}]
      - steps: [{text: Looked it up.}]
```

Steps: `text` or `chunks`, `reasoning`, `call`, `raw_call: {tool, json}` (what is no JSON object, as a model may write),
`answer` (a JSON object, as a call of the tool that must be called; where none must, as text), `cite: {title, url, …}`
(a source of the text before it), `delay_s`, `stall: true`, `error`, `stop_reason`, `usage`.

Only the conversation decides what is played, so a run that is continued after a crash goes on with the right turn. Of
the turns above, one without `match` has as its number the number of assistant messages that no `match` called for. Of
an agent's own, it has the number that the request has (`ModelRequest.turn`: the how-manieth answer to this question or
in this stage of a plan); there a turn that `match` calls for is played instead of the one of that number.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import yaml
from msgspec import Meta, Struct

from midstream.agents.conversation import AssistantMessage, Message, Text, UserMessage
from midstream.agents.providers.json_values import parsed_args

Seconds = Annotated[float, Meta(ge=0, le=3600)]
Tokens = Annotated[int, Meta(ge=0, le=2**53 - 1)]
ErrorType = Literal[
    "rate_limited",
    "overloaded",
    "model_unreachable",
    "model_stalled",
    "model_error",
    "model_denied",
    "context_too_long",
    "model_bad_request",
]

# Characters of a script file: a script is written by hand.
SCRIPT_LIMIT_CHARS: Final = 1_048_576

ACTS: Final = (
    "text",
    "chunks",
    "reasoning",
    "call",
    "raw_call",
    "answer",
    "cite",
    "stall",
    "error",
    "stop_reason",
    "usage",
)
"""What a step can be, beside a pause."""


class ScriptedCall(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    tool: str
    args: dict[str, Any] = {}

    def __post_init__(self) -> None:
        _check_json(self.args, name="args")


class ScriptedRawCall(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    tool: str
    json: str


class ScriptedError(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """`times`: how often this step fails in a conversation before it is passed over; None: always."""

    type: ErrorType
    times: Annotated[int, Meta(ge=1)] | None = None
    retry_after_s: Seconds | None = None


class ScriptedUsage(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    cached_input_tokens: Tokens = 0


class Step(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One of the fields, but `by` and `delay_s` may stand beside what is written in pieces."""

    text: str | None = None
    chunks: tuple[str, ...] | None = None
    by: Literal["word", "char"] | None = None
    reasoning: str | None = None
    call: ScriptedCall | None = None
    raw_call: ScriptedRawCall | None = None
    answer: dict[str, Any] | None = None
    cite: dict[str, Any] | None = None
    delay_s: Seconds | None = None
    stall: Literal[True] | None = None
    error: ErrorType | ScriptedError | None = None
    stop_reason: str | None = None
    usage: ScriptedUsage | None = None

    def __post_init__(self) -> None:
        named = [name for name in ACTS if getattr(self, name) is not None]
        if len(named) > 1:
            raise ValueError(f"a step is one thing, not {' and '.join(named)}")
        if not named and self.delay_s is None:
            raise ValueError(f"a step needs one of {', '.join(ACTS)}, delay_s")
        if self.by is not None and self.text is None:
            raise ValueError("`by` cuts a `text`")
        if self.delay_s is not None and named and named[0] not in ("text", "chunks"):
            raise ValueError(f"`delay_s` beside `{named[0]}`: make it a step of its own")
        if self.answer is not None:
            _check_json(self.answer, name="answer")
        if self.cite is not None:
            _check_json(self.cite, name="cite")

    def pieces(self) -> Sequence[str]:
        """What a `text` or `chunks` step says, in the pieces it says it in."""
        if self.chunks is not None:
            return self.chunks
        text = self.text or ""
        if self.by == "char":
            return list(text)
        if self.by == "word":
            return _words(text)
        return [text]


class Match(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What must be so, all of it: the newest message, or any message of a user, holds this text, in upper or lower
    case; the answer must be a call of that tool (`propose_plan`, `give_title`, `give_verdict`); of an agent's own
    turns it is this one.
    """

    last_user_contains: Annotated[str, Meta(min_length=1)] | None = None
    user_contains: Annotated[str, Meta(min_length=1)] | None = None
    must_call: str | None = None
    turn: Annotated[int, Meta(ge=0)] | None = None

    def __post_init__(self) -> None:
        if self.last_user_contains is None and self.user_contains is None and self.must_call is None:
            raise ValueError("`match` needs `last_user_contains`, `user_contains` or `must_call`")

    def calls_for(self, newest: str, all_said: str, *, must_call: str | None, turn: int | None) -> bool:
        return (
            (self.last_user_contains is None or self.last_user_contains.casefold() in newest)
            and (self.user_contains is None or self.user_contains.casefold() in all_said)
            and (self.must_call is None or self.must_call == must_call)
            and (self.turn is None or self.turn == turn)
        )


class Turn(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    steps: tuple[Step, ...]
    match: Match | None = None


Turns = Annotated[tuple[Turn, ...], Meta(min_length=1)]


class AgentScript(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    turns: Turns
    loop: bool = False


class Script(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    turns: Turns | None = None
    loop: bool = False
    agents: dict[str, AgentScript] = {}

    def __post_init__(self) -> None:
        if self.turns is None and not self.agents:
            raise ValueError("a script needs `turns` or `agents`")
        if any(turn.match is not None and turn.match.turn is not None for turn in self.turns or ()):
            raise ValueError("`match.turn` belongs to an agent's own turns: the others are counted by the conversation")


def load_script(source: Script | str | Path | Mapping[str, Any]) -> Script:
    """A script, the path of its YAML or JSON file, or what such a file holds. Raises `ValueError` that says where."""
    if isinstance(source, Script):
        return source
    if isinstance(source, Mapping):
        return _checked(dict(source), where="the script")
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the script {path} cannot be read: {error}") from error
    if len(text) > SCRIPT_LIMIT_CHARS:
        raise ValueError(f"the script {path} is longer than {SCRIPT_LIMIT_CHARS} characters")
    try:
        found = msgspec.json.decode(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (msgspec.DecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"the script {path} is no {'JSON' if path.suffix == '.json' else 'YAML'}: {error}") from error
    return _checked(found, where=f"the script {path}")


def turn_of(
    script: Script, messages: Sequence[Message], *, agent: str = "", turn: int = 0, must_call: str | None = None
) -> tuple[int, Turn] | None:
    """Which turn answers, with its number in the file; None when the script has no more."""
    own = script.agents.get(agent)
    turns = (script.turns or ()) if own is None else own.turns
    called = _called(turns, messages, must_call=must_call, turn=None if own is None else turn)
    if called is not None:
        return called
    number = _played(turns, messages) if own is None else turn
    plain = [(number, each) for number, each in enumerate(turns) if each.match is None]
    if plain and (script.loop if own is None else own.loop):
        number %= len(plain)
    return plain[number] if number < len(plain) else None


def _played(turns: Sequence[Turn], messages: Sequence[Message]) -> int:
    """How many of the answers so far no `match` called for."""
    return sum(
        1
        for number, message in enumerate(messages)
        if isinstance(message, AssistantMessage) and _called(turns, messages[:number]) is None
    )


def _called(
    turns: Sequence[Turn], messages: Sequence[Message], *, must_call: str | None = None, turn: int | None = None
) -> tuple[int, Turn] | None:
    matching = [(number, each) for number, each in enumerate(turns) if each.match is not None]
    if not matching or not messages or not isinstance(messages[-1], UserMessage):
        return None
    said = [_text(message) for message in messages if isinstance(message, UserMessage)]
    everything = "\n".join(said)
    for number, each in matching:
        if each.match is not None and each.match.calls_for(said[-1], everything, must_call=must_call, turn=turn):
            return number, each
    return None


def _text(message: UserMessage) -> str:
    return "\n".join(part.text for part in message.parts if isinstance(part, Text)).casefold()


def _check_json(value: dict[str, Any], *, name: str) -> None:
    if parsed_args(msgspec.json.encode(value).decode()) != value:
        raise ValueError(f"`{name}` holds what JSON cannot carry (a date? quote it)")


def _checked(found: object, *, where: str) -> Script:
    try:
        script = msgspec.convert(found, Script)
        msgspec.json.encode(script)
    except (msgspec.ValidationError, UnicodeEncodeError, OverflowError) as error:
        raise ValueError(f"{where}: {error}") from error
    return script


def _words(text: str) -> list[str]:
    out: list[str] = []
    for char in text:
        # A word ends with the white space after it, so the pieces join to the very text.
        if out and not (out[-1][-1].isspace() and not char.isspace()):
            out[-1] += char
        else:
            out.append(char)
    return out
