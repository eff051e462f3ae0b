"""Markup that is not the answer: what opens it, and how it ends. Tables and small matchers, pure.

A matcher is asked at one place of a text whose end may still grow. It says `NOTHING`, `MORE` (the answer depends on
what comes), or what is left out. What it says must not change with more text, or a cut would change what is shown.
"""

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Final, Literal

from msgspec import Struct

MAX_TAG_CHARS: Final = 1_000
"""Characters of one tag with its attributes."""

MAX_CLOSE_CHARS: Final = 100
"""Characters of what closes a region, beside its name."""


class Region(Struct, kw_only=True, frozen=True):
    """Text that is not shown, until `mark` matches. `opens` counts the nested ones: they must close too.

    `starts`: the characters that `mark` may begin with, `room` its greatest length. `keep`: the closing mark opens
    something itself, and stays to be looked at.
    """

    mark: re.Pattern[str]
    starts: str
    room: int
    opens: bool = False
    keep: frozenset[str] = frozenset()


class Gone(Struct, kw_only=True, frozen=True):
    """Left out up to `end`, and what follows as long as `region` lasts."""

    end: int
    region: Region | None = None


class Spoken(Struct, kw_only=True, frozen=True):
    """A tag that is spoken about: shown up to `end`, and so is every later `</name>` that closes nothing."""

    end: int
    name: str


NOTHING: Final = "nothing"
MORE: Final = "more"
Found = Gone | Spoken | Literal["nothing", "more"]

# -- tags: <tool_call name="x"> … </tool_call>

_OF_TOOLS: Final = (
    *("call", "calls", "use", "uses", "result", "results", "response", "responses", "output", "outputs", "input"),
    *("inputs", "code", "name", "args", "arguments", "parameters", "params", "request", "invocation", "run", "json"),
)
_PLAIN: Final = frozenset(
    {
        *("tool", "tools", "function", "invoke", "system", "think", "thinking", "thought", "thoughts", "reasoning"),
        *("parameter", "scratchpad", "reflection"),
    }
)
"""Names that may be a word of the answer's own subject: as a tag they count only in a tag's form."""
NAMES: Final = frozenset(
    {
        *_PLAIN,
        *(f"tool{sign}{part}" for sign in ("", "_", "-") for part in _OF_TOOLS),
        *(f"function{sign}{part}" for sign in ("", "_", "-") for part in _OF_TOOLS),
        *("invocation", "scratch_pad", "inner_thoughts", "inner_monologue", "chain_of_thought", "begin_of_thought"),
        *("antthinking", "ant_thinking", "hidden_reasoning", "internal_reasoning", "reflection_hidden"),
        *("system_prompt", "system-prompt", "systemprompt", "system_message", "system-message", "system_instructions"),
        *("system_reminder", "system-reminder", "system_note", "developer_message", "hidden_instructions"),
        *("arg_key", "arg_value", "search_quality_reflection", "search_quality_score", "thought_process"),
        *("inner_thought", "internal_thought", "internal_thoughts", "internal_monologue", "hidden_thoughts"),
        *("reasoning_content", "available_tools", "start_of_turn", "end_of_turn"),
    }
)
_NAMESPACES: Final = ("antml:", "seed:", "minimax:")
TAGS: Final = NAMES | {space + name for space in _NAMESPACES for name in NAMES}
_BEGINNINGS: Final = frozenset(name[:length] for name in TAGS for length in range(len(name) + 1))
_LONGEST: Final = max(map(len, TAGS))
UNSEEN: Final = "\u00ad\u200b-\u200f\u2060\ufeff"
"""Characters that nobody sees, as a class of a pattern."""
_LOOKS: Final = {"a": "\u0430\u03b1", "c": "\u0441", "e": "\u0435", "i": "\u0456", "k": "\u043a", "n": "\u0578"}
_LOOKS_TOO: Final = {
    "o": "\u043e\u03bf",
    "p": "\u0440",
    "s": "\u0455",
    "t": "\u0442\u03c4",
    "u": "\u03c5",
    "y": "\u0443",
}
LIKE: Final = {letter: letter + others for letter, others in (_LOOKS | _LOOKS_TOO).items()}
"""Letters of other alphabets that look like one of ours."""
_OTHERS: Final = "".join(like[1:] for like in LIKE.values())
_PLAINLY: Final = str.maketrans({other: letter for letter, like in LIKE.items() for other in like[1:]})
_NAME: Final = re.compile(rf"[A-Za-z{UNSEEN}{_OTHERS}][A-Za-z0-9_:{UNSEEN}{_OTHERS}-]*|")
_NOT_SEEN: Final = re.compile(f"[{UNSEEN}]")
_MAX_NAME: Final = 2 * _LONGEST
_OPEN: Final = "<\uff1c"
_SHUT: Final = ">\uff1e"
_SLASH: Final = "/\uff0f"
_COMPONENTS: Final = frozenset({"tool", "tools", "function", "parameter"})
"""Names that a component of a page may have: `<Tool icon="x">`."""
_QUOTES: Final = {"`": "`", '"': '"', "'": "'", "\u201c": "\u201d", "\u2018": "\u2019"}
_ABOUT: Final = re.compile(r" (?:(?:tag|element|block|marker)s?(?![A-Za-z0-9_])|(?:and|or|to) [<`\"'])")
_ABOUT_SO_FAR: Final = frozenset(
    whole[:length]
    for whole in (" tags", " elements", " blocks", " markers", " and ", " or ", " to ")
    for length in range(len(whole) + 1)
)
_AFTER_TYPE: Final = frozenset("),;>(&|?:=")
"""What follows a type's name in a program: `Option<tool_call>)`. No call begins so."""
_CUT_SHORT: Final = 3
"""Letters of a hidden tag's name with which an answer may not end: it was cut off there."""


def tag(text: str, at: int, before: str, *, final: bool, spoken: Collection[str] = ()) -> Found:
    """At a `<`, or what looks like it. `before` is the character in front of it, `spoken` the names of the tags that
    were spoken about.
    """
    closing = text[at + 1 : at + 2] in tuple(_SLASH)
    begin = at + 1 + closing
    found = _NAME.match(text, begin, begin + _MAX_NAME)
    written = _NOT_SEEN.sub("", found[0]).translate(_PLAINLY) if found is not None else ""
    name = written.lower()
    end = found.end() if found is not None else begin
    if end == len(text):
        if not final:
            return MORE if name in _BEGINNINGS else NOTHING
        cut = name in _BEGINNINGS and len(name) >= _CUT_SHORT
        return Gone(end=end) if cut else NOTHING
    if name not in TAGS:
        return NOTHING
    if text[end] not in "> \t\r\n\u00a0/=" + _SHUT + _SLASH:
        # Broken off in the middle, or a word that only begins so, or one of several types.
        typed = before.isalnum() and text[end] == ","
        return NOTHING if closing or typed or name in _PLAIN else Gone(end=end, region=region_of(name))
    if text[end] in _SLASH:
        if end + 1 == len(text) and not final:
            return MORE
        if text[end + 1 : end + 2] not in tuple(_SHUT):
            return NOTHING
    if written[0].isupper() and not written.isupper():
        component = name in _COMPONENTS and written[1:].islower() and text[end] != "="
        # A type's name in a program, List<Tool>, or a page's component.
        if component or (not closing and before.isalnum()):
            return NOTHING
    return _whole_tag(text, end, name, before=before, closing=closing, final=final, spoken=spoken)


_INSIDE: Final = re.compile(rf"""(?:[^"'{_OPEN}{_SHUT}]++|(?<=[= ])"[^"]*+"|(?<=[= ])'[^']*+'|(?<![= ])["'])*+""")
"""A tag's attributes, up to its end: a quote opens only where a value may begin."""


def _whole_tag(
    text: str, at: int, name: str, *, before: str, closing: bool, final: bool, spoken: Collection[str]
) -> Found:
    """After a tag's name: its attributes and its end."""
    limit = at + MAX_TAG_CHARS
    inside_of = _INSIDE.match(text, at, limit)
    assert inside_of is not None
    end = inside_of.end()
    broken = end < limit and text[end : end + 1] in tuple(_OPEN)
    if end < len(text) and text[end] in "\"'":
        # A quote that is not closed holds all the rest.
        end = min(limit, len(text))
    if end == len(text) and not final and end < limit:
        return MORE
    if broken or end >= min(limit, len(text)):
        # No tag's end. A prose word after all, if it may be one; else what follows is no answer either.
        sure = _bare(name) not in _PLAIN or "=" in text[at:end] or not text[at:end].strip()
        return Gone(end=end, region=None if closing else region_of(name)) if sure else NOTHING
    end += 1
    inside = text[at : end - 1]
    said = _spoken_about(text, end, before, closing=closing, final=final) if not inside.strip() else NOTHING
    if said == NOTHING and closing and name in spoken:
        said = "spoken"
    if said == "spoken":
        return Spoken(end=end, name=name)
    if said == MORE:
        return MORE
    if _bare(name) == "start_of_turn" and not closing:
        return _turn(text, end, final=final)
    if not closing and before.isalnum() and _bare(name) != "end_of_turn":
        if end == len(text) and not final:
            return MORE
        if end == len(text) or text[end] in _AFTER_TYPE or ("|" in inside and "=" not in inside):
            return NOTHING
    if closing or text[end - 2] in _SLASH or _bare(name) == "end_of_turn":
        return Gone(end=end)
    return Gone(end=end, region=region_of(name))


def _spoken_about(
    text: str, end: int, before: str, *, closing: bool, final: bool
) -> Literal["spoken", "nothing", "more"]:
    """Whether a tag that ends at `end` is not used but spoken about: alone in quotes, or a word of a sentence."""
    rest = text[end : end + 12]
    if before in _QUOTES:
        if not rest and not final:
            return MORE
        return "spoken" if rest.startswith(_QUOTES[before]) else NOTHING
    if before != " ":
        return NOTHING
    if end + len(rest) == len(text) and not final and rest in _ABOUT_SO_FAR:
        return MORE
    # A model whose thoughts begin with these words, in the middle of a line, is not known.
    if _ABOUT.match(text, end) or (closing and rest[:1] in tuple(".,;:)!?")):
        return "spoken"
    return NOTHING


def _turn(text: str, end: int, *, final: bool) -> Found:
    """After a model's mark of whose turn begins: what the model itself says is the answer."""
    role = _ROLE.match(text, end)
    if role is None or (role.end() == len(text) and not final):
        return MORE
    if role[1].lower() in ("model", "assistant"):
        return Gone(end=role.end() + text.startswith("\n", role.end()))
    mark = re.compile("<((?:end|start)_of_turn)>", re.IGNORECASE)
    return Gone(end=role.end(), region=Region(mark=mark, starts="<", room=15, keep=frozenset({"start_of_turn"})))


def _bare(name: str) -> str:
    """A tag's name without its namespace."""
    return name.rpartition(":")[2]


@lru_cache(maxsize=512)
def region_of(name: str) -> Region:
    """What a tag of this name holds."""
    bare = _bare(name)
    unseen = f"[{UNSEEN}]{{0,2}}"
    letters = unseen.join(f"[{LIKE[char]}]" if char in LIKE else re.escape(char) for char in bare)
    spaces = "|".join(_NAMESPACES)
    mark = re.compile(
        rf"[{_OPEN}]([{_SLASH}]?){unseen}(?:{spaces})?{letters}{unseen}(?=[\s{_SLASH}{_SHUT}=])"
        rf"[^{_OPEN}{_SHUT}]{{0,{MAX_CLOSE_CHARS}}}[{_SHUT}]",
        re.IGNORECASE,
    )
    room = max(map(len, _NAMESPACES)) + 3 * len(bare) + MAX_CLOSE_CHARS + 7
    return Region(mark=mark, starts=_OPEN, room=room, opens=True)


# -- special tokens of models: <|python_tag|> …

_TOKEN: Final = re.compile(r"<[|｜](/?[A-Za-z][A-Za-z0-9_▁ -]{1,39})[|｜]>")
_TOKEN_SO_FAR: Final = re.compile(r"<[|｜](?:/?(?:[A-Za-z][A-Za-z0-9_▁ -]{0,39}[|｜]?)?)")
_MAX_TOKEN: Final = 45
_ENDS: Final = frozenset({"im_end", "eot_id", "eom_id", "end", "end_of_turn", "endoftext", "end_of_text"})
_ROLES: Final = frozenset({"im_start", "start_header_id", "start", "start_of_role", "role"})
"""Tokens that a role's name follows; what the assistant says is the answer."""
_HOLDS: Final = re.compile(r"(?:^|(?<!no)_)(?:tool|function|think|reason|system|action|thought|python_tag)")
_ROLE: Final = re.compile(r"\s{0,8}([A-Za-z_]{0,20})")


def token(text: str, at: int, before: str, *, final: bool) -> Found:
    """At a `<|`."""
    found = _TOKEN.match(text, at)
    if found is None:
        so_far = _TOKEN_SO_FAR.match(text, at)
        if so_far is None or so_far.end() < len(text):
            return NOTHING
        return Gone(end=len(text)) if final and len(text) - at > 2 else NOTHING if final else MORE
    name, end = named(found[1]), found.end()
    if before == "`" and text.startswith("`", end):
        return NOTHING
    if before == "`" and end == len(text) and not final:
        return MORE
    if name in _ROLES or name == "channel":
        role = _ROLE.match(text, end)
        if role is None or (role.end() == len(text) and not final):
            return MORE
        if role[1].lower() in ("assistant", "final"):
            return Gone(end=role.end() + text.startswith("\n", role.end()))
        if name == "channel":
            return Gone(end=role.end(), region=_until(_ENDS | {"call", "return"}, keep={"start", "channel"}))
        return Gone(end=role.end(), region=_until(_ENDS | {"call", "return"}, keep=_ROLES))
    if name.startswith("/") or not _HOLDS.search(name) or re.search(r"(?:^|_)end(?:_|$)", name):
        return Gone(end=end)
    closers = {f"/{name}", f"end_{name}", f"{name}_end", re.sub("begin|start", "end", name)}
    # A header of a model that writes no end of it: the message's end is one.
    return Gone(end=end, region=_until((closers | _ENDS) - {name}, keep=_ROLES))


def named(written: str) -> str:
    """A token's name in one spelling."""
    return written.lower().replace("▁", "_").replace(" ", "_").replace("-", "_").strip("_")


def _until(names: set[str] | frozenset[str], *, keep: set[str] | frozenset[str] = frozenset()) -> Region:
    written = "|".join(
        re.escape(name).replace("_", "[_▁ -]") for name in sorted({*names, *keep}, key=len, reverse=True)
    )
    mark = re.compile(rf"<[|｜]({written})[|｜]>", re.IGNORECASE)
    return Region(mark=mark, starts="<", room=_MAX_TOKEN, keep=frozenset(keep))


# -- brackets: [TOOL_CALLS] …, <<SYS>> … <</SYS>>

_BRACKETS: Final = (
    "TOOL_CALLS",
    "TOOL_CALL",
    "TOOL_RESULTS",
    "TOOL_CONTENT",
    "AVAILABLE_TOOLS",
    "SYSTEM_PROMPT",
    "THINK",
)
_OPENERS: Final = {
    **{f"[{name}]": (f"[/{name}]", "[") for name in _BRACKETS},
    "<<SYS>>": ("<</SYS>>", "<"),
    "◁think▷": ("◁/think▷", "◁"),
}
_STRAY: Final = frozenset({closer for closer, _ in _OPENERS.values()})
MARKS: Final = frozenset({*_OPENERS, *_STRAY})
_LONGEST_MARK: Final = max(map(len, MARKS))
_MARKS_SO_FAR: Final = frozenset(mark[:length] for mark in MARKS for length in range(1, len(mark)))


def bracket(text: str, at: int, before: str, *, final: bool) -> Found:
    """At a `[`, a `◁` or a `<<`. These are written in capitals, or they are prose."""
    for mark in MARKS:
        if not text.startswith(mark, at):
            continue
        end = at + len(mark)
        if before == "`" and end == len(text) and not final:
            return MORE
        if before == "`" and text.startswith("`", end):
            return NOTHING
        if mark in _STRAY:
            return Gone(end=end)
        closer, starts = _OPENERS[mark]
        region = Region(mark=re.compile(re.escape(closer)), starts=starts, room=len(closer))
        return Gone(end=end, region=region)
    rest = text[at : at + _LONGEST_MARK]
    if at + len(rest) == len(text) and rest in _MARKS_SO_FAR:
        return MORE if not final else Gone(end=len(text)) if len(rest) > _CUT_SHORT else NOTHING
    return NOTHING


# -- fences: ```tool_code …

_FENCE: Final = re.compile(r"```([A-Za-z_-]{0,20})")
FENCES: Final = frozenset(
    {"tool_code", "tool_call", "tool_calls", "tool_use", "tool_output", "tool_outputs", "tool_json", "function_call"}
    | {"tool", "tool_request", "tool_result", "tool_results"}
)
JSON_FENCE: Final = re.compile(r"```(?:json|jsonc|json5)[ \t]{0,8}\r?\n[ \t\r\n]{0,64}(?=[\[{])", re.IGNORECASE)
_JSON_SO_FAR: Final = re.compile(
    r"(?:j(?:s(?:o(?:n(?:[c5])?)?)?)?)?|(?:json|jsonc|json5)[ \t]{0,8}\r?(?:\n[ \t\r\n]{0,64})?", re.IGNORECASE
)


def fence(text: str, at: int, *, final: bool) -> Found:
    """At a backtick. `NOTHING` also at the fence of an object, which `JSON_FENCE` matches."""
    rest = text[at : at + 3]
    if len(rest) < 3 and not rest.strip("`"):
        return NOTHING if final else MORE
    found = _FENCE.match(text, at)
    if found is None:
        return NOTHING
    info = found[1].lower()
    if found.end() == len(text) and not final:
        so_far = any(name.startswith(info) for name in FENCES) or _JSON_SO_FAR.fullmatch(info) is not None
        return MORE if so_far else NOTHING
    if info in FENCES:
        return Gone(end=found.end(), region=Region(mark=re.compile("```"), starts="`", room=3))
    if JSON_FENCE.match(text, at) or final:
        return NOTHING
    return MORE if info and _JSON_SO_FAR.fullmatch(text, at + 3) else NOTHING
