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
```

Steps: `text` or `chunks`, `reasoning`, `call`, `raw_call: {tool, json}` (what is no JSON object, as a model may write),
`delay_s`, `stall: true`, `error`, `stop_reason`, `usage`. Only the conversation decides what is played, so a run
that is continued after a crash goes on with the right turn: a turn without `match` has as its number the number of
assistant messages that no `match` called for.
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


class ScriptedCall(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    tool: str
    args: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if parsed_args(msgspec.json.encode(self.args).decode()) != self.args:
            raise ValueError("`args` holds what JSON cannot carry (a date? quote it)")


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
    delay_s: Seconds | None = None
    stall: Literal[True] | None = None
    error: ErrorType | ScriptedError | None = None
    stop_reason: str | None = None
    usage: ScriptedUsage | None = None

    def __post_init__(self) -> None:
        acts = ("text", "chunks", "reasoning", "call", "raw_call", "stall", "error", "stop_reason", "usage")
        named = [name for name in acts if getattr(self, name) is not None]
        if len(named) > 1:
            raise ValueError(f"a step is one thing, not {' and '.join(named)}")
        if not named and self.delay_s is None:
            raise ValueError(f"a step needs one of {', '.join(acts)}, delay_s")
        if self.by is not None and self.text is None:
            raise ValueError("`by` cuts a `text`")
        if self.delay_s is not None and named and named[0] not in ("text", "chunks"):
            raise ValueError(f"`delay_s` beside `{named[0]}`: make it a step of its own")

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
    """Whether the newest message holds this text, in upper or lower case."""

    last_user_contains: Annotated[str, Meta(min_length=1)]


class Turn(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    steps: tuple[Step, ...]
    match: Match | None = None


class Script(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    turns: Annotated[tuple[Turn, ...], Meta(min_length=1)]
    loop: bool = False


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


def turn_of(script: Script, messages: Sequence[Message]) -> tuple[int, Turn] | None:
    """Which turn answers, with its number in the file; None when the script has no more."""
    called = _called(script, messages[-1] if messages else None)
    if called is not None:
        return called
    plain = [(number, turn) for number, turn in enumerate(script.turns) if turn.match is None]
    played = sum(
        1
        for number, message in enumerate(messages)
        if isinstance(message, AssistantMessage) and _called(script, messages[number - 1] if number else None) is None
    )
    if script.loop and plain:
        played %= len(plain)
    return plain[played] if played < len(plain) else None


def _called(script: Script, before: Message | None) -> tuple[int, Turn] | None:
    if not isinstance(before, UserMessage):
        return None
    said = "\n".join(part.text for part in before.parts if isinstance(part, Text)).casefold()
    for number, turn in enumerate(script.turns):
        if turn.match is not None and turn.match.last_user_contains.casefold() in said:
            return number, turn
    return None


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
