"""What of a conversation goes to the model (pure): long results shortened first, then the oldest messages left out.

It works with estimates (`tokens.py`), and in steps that are taken only as far as needed: from over `high` down to
`low`, so that the next one is far off and what was sent stays the beginning of what is sent next.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from midstream.agents.budget.blocks import LEFT_OUT, Block
from midstream.agents.budget.shorten import as_kept, chars_for, level, shortened
from midstream.agents.budget.tokens import MESSAGE_TOKENS, message_tokens, part_tokens
from midstream.agents.conversation import AssistantMessage

WORTH: Final = 0.75
"""An old result is shortened if it becomes smaller than this share of itself: the note costs something too."""

_NOTE: Final = message_tokens(LEFT_OUT)


class Trimming(Struct, kw_only=True, frozen=True):
    """What was done to a conversation so far. It only grows.

    `dropped`: how many of the blocks that may go are gone, counted from the oldest. `kept`: how many characters of a
    result stayed, by the id of its call.
    """

    dropped: int = 0
    kept: Mapping[str, int] = {}


class Bounds(Struct, kw_only=True, frozen=True):
    """In estimated tokens. Over `high` it is trimmed, down to `low`; a long result keeps `result`."""

    fixed: int
    high: int
    low: int
    result: int


class Trimmed(Struct, kw_only=True, frozen=True):
    """`blocks` as they go, None where some were left out. `size` may be over the bound: then nothing more can go.

    `before` is the size with the trimming as it was; `dropped` messages and `truncated` results are what came on top.
    """

    blocks: tuple[Block | None, ...]
    trimming: Trimming
    before: int
    size: int
    dropped: int
    truncated: int


def trimmed(blocks: Sequence[Block], trimming: Trimming, bounds: Bounds) -> Trimmed:
    """Trim as far as needed beyond `trimming`. Never touched: what is critical, and the words of the newest turn."""
    work = _Work(blocks, trimming, bounds)
    before = work.size
    if work.size > bounds.high:
        work.shorten_old()
        work.shorten_newest()
        work.drop()
        work.shorten_all()
    return Trimmed(
        blocks=work.shown(),
        trimming=Trimming(dropped=work.gone, kept=work.kept),
        before=before,
        size=work.size,
        dropped=sum(blocks[index].entries for index in work.droppable[trimming.dropped : work.gone]),
        truncated=work.shortened_since(trimming),
    )


def droppable(blocks: Sequence[Block]) -> list[int]:
    """What may go, the oldest first: all that is not critical and comes before the newest turn. With no turn yet, also
    the history that comes after the last answer, but no note: that is what the model is to hear now.
    """
    said = [index for index, block in enumerate(blocks) if isinstance(block.message, AssistantMessage)]
    turns = [index for index in said if blocks[index].kind != "history"]
    newest = turns[-1] if turns else len(blocks)
    answered = said[-1] if said else -1
    return [
        index
        for index, block in enumerate(blocks[:newest])
        if not block.critical and (turns or index <= answered or block.kind == "history")
    ]


class _Work:
    """One trimming under way. `sizes` are of the blocks without their results, `results` as they are shown now."""

    def __init__(self, blocks: Sequence[Block], trimming: Trimming, bounds: Bounds) -> None:
        self.droppable = droppable(blocks)
        self.gone = min(trimming.dropped, len(self.droppable))
        self.kept = dict(trimming.kept)
        self._blocks = blocks
        self._bounds = bounds
        left_out = set(self.droppable[: self.gone])
        self._there = [index for index in range(len(blocks)) if index not in left_out]
        self._words = {index: message_tokens(blocks[index].message) for index in self._there}
        self._results = {
            index: [as_kept(result, self.kept) for result in blocks[index].results] for index in self._there
        }
        self._sizes = {index: [part_tokens(result) for result in results] for index, results in self._results.items()}
        # The note that messages were left out always has its place: dropping one cannot make it larger.
        self.size = bounds.fixed + _NOTE + sum(map(self._cost, self._there))

    def shown(self) -> tuple[Block | None, ...]:
        out: list[Block | None] = [
            msgspec.structs.replace(self._blocks[index], results=tuple(self._results[index])) for index in self._there
        ]
        if self.gone:
            # Where the first of them was: it stays there, whatever goes later.
            out.insert(sum(index < self.droppable[0] for index in self._there), None)
        return tuple(out)

    def shortened_since(self, trimming: Trimming) -> int:
        """How many of the results that are still there became shorter."""
        there = {result.call_id for index in self._there for result in self._blocks[index].results}
        return sum(self.kept[call_id] != trimming.kept.get(call_id) for call_id in there & self.kept.keys())

    def shorten_old(self) -> None:
        for index in self._old():
            for number in range(len(self._results[index])):
                if self.size <= self._bounds.low:
                    return
                self._shorten(index, number, self._bounds.result, worth=WORTH)

    def shorten_newest(self) -> None:
        """Where dropping all the rest would not do, the newest results make room, and leave some to what is older."""
        old = self._old()
        rest = sum(map(self._cost, old))
        if self.size - rest <= self._bounds.high:
            return
        at = self._kept_blocks()
        free = self._bounds.low - (self.size - rest - self._in_results(at))
        self._level(at, free - min(rest, free // 3), least=self._bounds.result)

    def drop(self) -> None:
        for index in self.droppable[self.gone :]:
            if self.size <= self._bounds.low:
                return
            self.size -= self._cost(index)
            self._there.remove(index)
            self.gone += 1

    def shorten_all(self) -> None:
        """The last resort: only notes of the results, if it must be."""
        if self.size <= self._bounds.high:
            return
        self._level(self._there, self._bounds.high - (self.size - self._in_results(self._there)), least=0)

    # -- parts

    def _old(self) -> list[int]:
        return self.droppable[self.gone :]

    def _kept_blocks(self) -> list[int]:
        old = set(self._old())
        return [index for index in self._there if index not in old]

    def _cost(self, index: int) -> int:
        sizes = self._sizes[index]
        return self._words[index] + (MESSAGE_TOKENS + sum(sizes) if sizes else 0)

    def _in_results(self, at: Sequence[int]) -> int:
        return sum(sum(self._sizes[index]) for index in at)

    def _level(self, at: Sequence[int], room: int, *, least: int) -> None:
        """Cut the largest results of these blocks to one size, so that all of them come into `room`."""
        most = max(least, level([size for index in at for size in self._sizes[index]], room))
        for index in at:
            for number, size in enumerate(self._sizes[index]):
                if size > most:
                    self._shorten(index, number, most, worth=1.0)

    def _shorten(self, index: int, number: int, tokens: int, *, worth: float) -> None:
        whole, before = self._blocks[index].results[number], self._sizes[index][number]
        chars = chars_for(whole, tokens)
        if chars >= self.kept.get(whole.call_id, len(whole.content)):
            return
        now = shortened(whole, chars)
        size = part_tokens(now)
        if size >= before * worth:
            return
        self.kept[whole.call_id] = chars
        self.size += size - before
        self._results[index][number], self._sizes[index][number] = now, size
