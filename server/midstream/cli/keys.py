"""What a typed line means. Pure: the line and what is being asked go in, an intent comes out."""

import json
from typing import Any, Final, Literal

from msgspec import Struct

from midstream_protocol.events import CancelMode, CorrectionMode

HELP: Final = """\
  any text          correct the run at its next step        !text     correct it now, interrupting the model
  /idle text        use it when the plan is done            /revoke   take the last correction back
  /stop [reason]    cancel now        /after [reason]       cancel after this step
  /say text         a correction that looks like an answer  /quit     leave; the run goes on
  Enter             hold the output while you type          Ctrl-C    cancel, again: force, again: leave
when it asks:  y approve · n [reason] deny · e [JSON] edit the arguments, then approve · a approve for this run"""


class Approve(Struct, frozen=True):
    for_run: bool = False


class Deny(Struct, frozen=True):
    reason: str | None = None


class Edit(Struct, frozen=True):
    """`args` None: in an editor."""

    args: dict[str, Any] | None = None


class Reply(Struct, frozen=True):
    """The answer to the agent's question."""

    answer: Any


class Correct(Struct, frozen=True):
    text: str
    mode: CorrectionMode = "next_step"


class Revoke(Struct, frozen=True):
    pass


class Stop(Struct, frozen=True):
    mode: CancelMode = "now"
    reason: str | None = None


class Quit(Struct, frozen=True):
    pass


class Hold(Struct, frozen=True):
    """Print nothing until the next line."""


class Say(Struct, frozen=True):
    """Only a word to the person who types."""

    text: str


Intent = Approve | Deny | Edit | Reply | Correct | Revoke | Stop | Quit | Hold | Say

Asked = Literal["approval", "input"]

_YES: Final = frozenset({"y", "yes"})
_NO: Final = frozenset({"n", "no"})
_ALL: Final = frozenset({"a", "all"})
_EDIT: Final = frozenset({"e", "edit"})
_ANSWER_WORDS: Final = _YES | _NO | _ALL | _EDIT


def parse(line: str, *, asked: Asked | None, choices: tuple[str, ...] = (), as_json: bool = False) -> Intent:
    """`asked`: what waits for an answer now. `choices`: the answers offered; `as_json`: the answer is no plain text."""
    text = line.strip()
    if text.startswith("/"):
        return _command(text[1:])
    if text.startswith("!"):
        said = text[1:].strip()
        return Correct(said, "now") if said else Say("write the correction after the !")
    if asked == "approval":
        return _approval(text)
    if asked == "input":
        return _input(text, choices, as_json=as_json)
    if not text:
        return Hold()
    # A late "y" must not become a correction to the model.
    if text.lower() in _ANSWER_WORDS:
        return Say(f"nothing waits for an answer; to send it as a correction type /say {text}")
    return Correct(text)


def _command(text: str) -> Intent:
    name, _, rest = text.partition(" ")
    rest = rest.strip()
    match name:
        case "stop":
            return Stop("now", rest or None)
        case "after":
            return Stop("after_step", rest or None)
        case "idle" | "say" if not rest:
            return Say(f"write the correction after /{name}")
        case "idle":
            return Correct(rest, "when_idle")
        case "say":
            return Correct(rest)
        case "revoke":
            return Revoke()
        case "quit":
            return Quit()
        case "help" | "?":
            return Say(HELP)
    return Say(f"no command is called /{name}\n{HELP}")


def _approval(text: str) -> Intent:
    word, _, rest = text.partition(" ")
    rest = rest.strip()
    answer = word.lower()
    if answer in _NO:
        return Deny(rest or None)
    if answer in _EDIT:
        return _edit(rest)
    # "yes, but …" is no yes.
    if not rest and answer in _YES:
        return Approve()
    if not rest and answer in _ALL:
        return Approve(for_run=True)
    return Say("answer y, n [reason], e [JSON] or a; a correction goes with /say or !")


def _edit(text: str) -> Intent:
    if not text:
        return Edit()
    try:
        args = json.loads(text)
    except ValueError as wrong:
        return Say(f"that is not JSON ({wrong}); type e and an object with the arguments to replace")
    if not isinstance(args, dict):
        return Say('arguments are a JSON object, such as {"path": "notes.txt"}')
    return Edit(args)


def _input(text: str, choices: tuple[str, ...], *, as_json: bool) -> Intent:
    if not text:
        return Say("type an answer" + (" or its number" if choices else ""))
    if choices and text.isdecimal() and 1 <= int(text) <= len(choices):
        return Reply(choices[int(text) - 1])
    if not as_json:
        return Reply(text)
    try:
        return Reply(json.loads(text))
    except ValueError:
        return Say("the answer is JSON here: a number, true, false, or an object")


def changed_args(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The top-level arguments that an edit changed or added.

    Only these are sent: what is shown may be sanitised, and must not replace what was hidden. A removed argument
    stays as it is.
    """
    return {name: value for name, value in after.items() if name not in before or not _same(before[name], value)}


def _same(one: Any, other: Any) -> bool:
    # Not `==`: to Python 1 and true are equal.
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
