"""What may be shown of a model's text while it streams: the answer, and nothing that is not the answer.

Two small machines, one after the other. The first leaves out markup: tools' (`<tool_call>…`), thinking's, a system's,
special tokens, calls written as JSON. The second puts `[hidden]` for secrets, also those that the first one's cuts have
joined. Each holds back only what more text could change, so it shows the same however the stream was cut.

What merely resembles markup is shown: `a<b`, `<table>`, `List<Tool>`, and a tag that is spoken about: alone in
quotes or backticks, or “the <think> tag”. A tag in a fence with anything behind it is not: models write calls into
fences too.
"""

import asyncio
import re
from collections.abc import Callable, Collection, Sequence
from typing import Final

from midstream.agents.outflow.contract import Outflow
from midstream.agents.outflow.exact import HIDDEN, Exact
from midstream.agents.outflow.known import Secrets, known_secrets
from midstream.agents.outflow.markup import (
    JSON_FENCE,
    NOTHING,
    Found,
    Gone,
    Region,
    Spoken,
    bracket,
    fence,
    named,
    tag,
    token,
)
from midstream.agents.outflow.raw_calls import MAX_HELD_CHARS, KnownTool, Span, is_call, opening, seems_call
from midstream.agents.outflow.secrets import (
    MAX_WORD_CHARS,
    WORD_END,
    key_begins,
    surely_plain,
    without_key,
)
from midstream.agents.outflow.signs import MAY_BEGIN


class TextFilter:
    """One message's text on its way out. Memory is bounded whatever comes."""

    def __init__(self, secrets: Exact, *, known_tool: KnownTool | None = None, guess: bool = True) -> None:
        self._markup = _Markup(known_tool)
        self._secrets = _Secrets(secrets, guess=guess)

    def feed(self, text: str) -> str:
        """What may be shown now."""
        return self._secrets.feed(self._markup.feed(text))

    def end(self) -> str:
        """The message is over: what was held back and may be shown after all."""
        return self._secrets.feed(self._markup.end()) + self._secrets.end()

    async def whole(self, text: str) -> str:
        """A text that did not stream. Of a filter that was not fed. Others have their turn while it is looked at."""
        shown: list[str] = []
        for at in range(0, len(text), _PIECE_CHARS):
            if at:
                await asyncio.sleep(0)
            shown.append(self.feed(text[at : at + _PIECE_CHARS]))
        return "".join([*shown, self.end()])


def text_filter_for(
    outflow: Outflow,
    system_texts: Sequence[str] = (),
    *,
    secrets: Secrets | None = None,
    tools: Callable[[], Collection[str]] | None = None,
) -> Callable[[], TextFilter]:
    """Makes a filter for each message of a run. `secrets`: the run's, which grow; without, those of `outflow` and
    `system_texts`. `tools`: the names of tools, so that other JSON is shown; without, any call's form is hidden.
    """
    known = secrets if secrets is not None else known_secrets(texts=outflow.secrets, system=system_texts)

    def made() -> TextFilter:
        names = tools
        is_tool = None if names is None else lambda name: name.removeprefix("functions.") in names()
        return TextFilter(known.exact, known_tool=is_tool, guess=outflow.guess)

    return made


_PIECE_CHARS: Final = 8 * 1024
"""Characters of a whole text that are looked at in one go: a few milliseconds of work."""

_AGAIN: Final = 8
"""How often one character is looked at as a part of objects that begin like calls and are none. No answer is deeper."""

_JUDGING: Final = _AGAIN * MAX_HELD_CHARS
"""Characters of such objects that may be looked at without any that are new."""


class _Markup:
    """`_held`: text that is not decided yet, or the end of a region's that may be its closing mark. `_plain`: nothing
    is held or open, so a text without a sign is shown as it is: most deltas.
    """

    def __init__(self, known_tool: KnownTool | None) -> None:
        self._known_tool = known_tool
        self._held = ""
        self._before = ""
        self._region: Region | None = None
        self._depth = 0
        self._object: _Object | None = None
        self._fenced = False
        self._in_fence = False
        self._spoken: set[str] = set()
        self._plain = True
        self._fed = 0
        """Characters that have come so far."""
        self._base = 0
        """How many of them are before the text that is looked at."""
        self._judging = _JUDGING
        self._judged_at = 0

    def feed(self, text: str) -> str:
        plain = ""
        if self._plain:
            found = MAY_BEGIN.search(text)
            place = len(text) if found is None else found.start()
            plain, text = text[:place], text[place:]
            self._before = plain[-1:] or self._before
            self._fed += place
        if not text:
            return plain
        shown = self._run(text, final=False)
        waits = self._region is not None or self._object is not None or self._fenced or self._in_fence
        self._plain = not waits and not self._held
        return plain + shown

    def end(self) -> str:
        return self._run("", final=True)

    def _run(self, text: str, *, final: bool) -> str:
        self._base = self._fed - len(self._held)
        self._fed += len(text)
        text = self._held + text
        self._held = ""
        out: list[str] = []
        at: int | None = 0
        while at is not None and at < len(text):
            if self._region is not None:
                at = self._in_region(self._region, text, at)
            elif self._object is not None:
                at = self._in_object(self._object, text, at, out, final=final)
            elif self._fenced:
                at = self._after_fenced(text, at, final=final)
            else:
                at = self._in_text(text, at, out, final=final)
        return "".join(out)

    # -- each: the place to go on from; None: the rest is held

    def _in_text(self, text: str, at: int, out: list[str], *, final: bool) -> int | None:
        special = MAY_BEGIN.search(text, at)
        place = special.start() if special is not None else len(text)
        self._show(text[at:place], out)
        if special is None:
            return place
        match self._found(text, place, final=final):
            case Gone() as gone:
                self._region, self._depth = gone.region, 1
                return gone.end
            case Spoken() as spoken:
                self._spoken.add(spoken.name)
                self._show(text[place : spoken.end], out)
                return spoken.end
            case "more":
                self._held = text[place:]
                return None
            case _:
                return self._object_or_sign(text, place, out, final=final)

    def _found(self, text: str, at: int, *, final: bool) -> Found:
        char, before = text[at], self._before
        if char == "`":
            return fence(text, at, final=final)
        if char in "[◁":
            return bracket(text, at, before, final=final)
        if char not in "<＜":
            return NOTHING
        if text.startswith("<", at + 1):
            return bracket(text, at, before, final=final)
        if text.startswith(("|", "｜"), at + 1):
            return token(text, at, before, final=final)
        return tag(text, at, before, final=final, spoken=self._spoken)

    def _object_or_sign(self, text: str, at: int, out: list[str], *, final: bool) -> int | None:
        """At a special character that opens no markup: the beginning of a call written as JSON, or what it is."""
        fenced = JSON_FENCE.match(text, at) if text[at] == "`" else None
        begin = fenced.end() if fenced is not None else at
        if text[begin] in "{[":
            said = opening(text, begin, self._known_tool)
            if said == "more" and not final:
                self._held = text[at:]
                return None
            if said == "maybe" or (said == "more" and final):
                self._object = _Object(fence=begin - at)
                self._object.dropped = not self._may_judge(self._base + at)
                return at
        self._show(text[at], out)
        return at + 1

    def _in_object(self, it: "_Object", text: str, at: int, out: list[str], *, final: bool) -> int | None:
        if it.dropped:
            end = it.span.end(text, at, len(text))
            return len(text) if end is None else self._gone(it, end)
        begin = at + it.fence
        limit = min(len(text), begin + MAX_HELD_CHARS)
        end = it.span.end(text, begin + it.seen, limit)
        it.seen = limit - begin
        if end is not None and not it.span.too_deep:
            if is_call(text[begin:end], self._known_tool):
                return self._gone(it, end)
        elif end is None and it.seen < MAX_HELD_CHARS and not final:
            self._held = text[at:]
            return None
        # Cut off, too long or too deep: judged by its beginning.
        elif seems_call(text[begin : end or limit], self._known_tool):
            it.dropped, it.span.too_deep = True, False
            return end or limit
        self._object = None
        self._judging -= (end or limit) - begin
        self._show(text[at], out)
        return at + 1

    def _may_judge(self, place: int) -> bool:
        """Whether an object at this place (of all that came) is looked at. Objects that begin inside of each other are
        the same text again: a text that keeps on beginning them without being a call is no answer, and one more of them
        is left out without a look.
        """
        self._judging = min(_JUDGING, self._judging + _AGAIN * (place - self._judged_at))
        self._judged_at = place
        return self._judging > 0

    def _gone(self, it: "_Object", end: int) -> int:
        self._object, self._fenced = None, it.fence > 0 or self._in_fence
        return end

    def _after_fenced(self, text: str, at: int, *, final: bool) -> int | None:
        """Behind a call that stood in a fence: the fence's end goes with it, if nothing else is in it."""
        space = _SPACE.match(text, at)
        assert space is not None
        rest = text[space.end() : space.end() + 3]
        if space.end() + len(rest) == len(text) and len(rest) < 3 and not rest.strip("`") and not final:
            self._held = text[at:]
            return None
        self._fenced, self._in_fence = False, rest.startswith(("{", "["))
        if rest == "```":
            return space.end() + 3
        return space.end() if self._in_fence else at

    def _in_region(self, region: Region, text: str, at: int) -> int | None:
        for found in region.mark.finditer(text, at):
            at = found.end()
            if region.opens:
                self._depth += -1 if found[1] else 0 if found[0].endswith("/>") else 1
            if not region.opens or self._depth <= 0:
                self._region = None
                return found.start() if region.keep and named(found[1]) in region.keep else at
        rest = max(at, len(text) - region.room)
        closing = min((place for char in region.starts if (place := text.find(char, rest)) >= 0), default=len(text))
        if closing == len(text):
            return closing
        self._held = text[closing:]
        return None

    def _show(self, text: str, out: list[str]) -> None:
        if text:
            out.append(text)
            self._before = text[-1]
            self._in_fence = self._in_fence and text.isspace()


class _Object:
    """An object that may be a call, with `fence` characters of a fence before it. `dropped`: it is one, and goes on."""

    def __init__(self, *, fence: int) -> None:
        self.fence = fence
        self.span = Span()
        self.seen = 0
        self.dropped = False


_SPACE: Final = re.compile(r"\s{0,64}")


class _Secrets:
    """Known texts first, then words that look like a key or say that they are secret (`guess`)."""

    def __init__(self, known: Exact, *, guess: bool) -> None:
        self._known = known
        self._guess = guess
        self._held = ""
        self._word = ""
        self._before = ""
        self._endless = False

    def feed(self, text: str) -> str:
        shown, self._held = self._known.scan(self._held + text) if self._known else (text, "")
        return self._words(shown, final=False)

    def end(self) -> str:
        rest, self._held = self._known.replaced(self._held), ""
        return self._words(rest, final=True)

    def _words(self, text: str, *, final: bool) -> str:
        if not self._guess:
            return text
        if self._word:
            text, self._word = self._word + text, ""
        elif not self._endless and (surely_plain(text) or key_begins(text, 0, self._before)[0] == len(text)):
            self._before = text[-1:] or self._before
            return text
        out: list[str] = []
        at = 0
        while at < len(text):
            if self._endless:
                rest = WORD_END.search(text, at)
                self._endless = rest is None
                at = len(text) if rest is None else rest.start()
                continue
            begin, end = key_begins(text, at, self._before)
            out.append(text[at:begin])
            self._before = text[begin - 1] if begin > at else self._before
            if end == len(text) and begin < end and not final and end - begin < MAX_WORD_CHARS:
                self._word = text[begin:]
                break
            self._endless = end - begin >= MAX_WORD_CHARS
            out.append(HIDDEN if self._endless else without_key(text[begin:end]))
            self._before = text[end - 1] if end > begin else self._before
            at = end
        return "".join(out)
