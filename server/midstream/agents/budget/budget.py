"""The budget of one conversation with a model: how full its window may be, and what was done to stay below."""

import math
from typing import Final

from midstream.agents.budget.blocks import Block, blocks_of, joined
from midstream.agents.budget.contract import Entry, Fitted
from midstream.agents.budget.fitting import Bounds, Trimmed, Trimming, trimmed
from midstream.agents.budget.tokens import Scale
from midstream.runs.contract import RunFailure

HIGH: Final = 0.85
"""Share of the window, less the answer's part of it, above which a conversation is trimmed: estimates are no counts."""
LOW: Final = 0.6
"""Share it is trimmed to: far enough below that the next time is many turns away, and prompt caches live that long."""
LOWER: Final = 0.75
"""What is left of a bound after the model refused a conversation that kept to it."""

ANSWER_SHARE: Final = 0.25
"""The answer may have no more of the window, whatever it may have in a larger one: it has to fit again when it is part
of the conversation."""

RESULT_SHARE: Final = 0.025
MIN_RESULT_TOKENS: Final = 120
MAX_RESULT_TOKENS: Final = 500
"""What a long result keeps of the window, its note included, within these bounds: its first and last lines."""

SLICE_CHARS_A_TOKEN: Final = 0.25
MIN_SLICE_CHARS: Final = 200
MAX_SLICE_CHARS: Final = 8_000
"""What is read of a whole result at once, for each token of the window, within these bounds."""


class Budget:
    """`Fits` for one conversation. Both numbers are tokens; raises ValueError for less than 1.

    What it did is forgotten with it: a program that begins again trims the same conversation anew.
    """

    def __init__(self, window_tokens: int, max_output_tokens: int) -> None:
        if window_tokens < 1 or max_output_tokens < 1:
            given = f"{window_tokens} and {max_output_tokens}"
            raise ValueError(f"a budget needs a window and an answer of at least 1 token each, not {given}")
        self._window = window_tokens
        self._answer = max(1, min(max_output_tokens, math.floor(window_tokens * ANSWER_SHARE)))
        self._usable = window_tokens - self._answer
        self._ceiling = self._high = math.floor(self._usable * HIGH)
        self._result = min(MAX_RESULT_TOKENS, max(MIN_RESULT_TOKENS, math.floor(self._usable * RESULT_SHARE)))
        self._scale = Scale()
        self._trimming = Trimming()
        self._blocks: list[Block] = []
        self._fixed = 0
        self._sent: int | None = None

    @property
    def slice_chars(self) -> int:
        """How much of a whole result `read_result` gives at once."""
        return min(MAX_SLICE_CHARS, max(MIN_SLICE_CHARS, math.floor(self._usable * SLICE_CHARS_A_TOKEN)))

    def fit(self, entries: list[Entry], *, fixed_tokens: int) -> Fitted:
        self._blocks, self._fixed = blocks_of(entries), fixed_tokens
        done = self._trim(self._high)
        tokens = self._scale.tokens(done.size)
        if tokens > self._ceiling:
            raise RunFailure(
                "context_too_long",
                f"What cannot be left out of this conversation is some {tokens:,} tokens long, and the model's window "
                f"of {self._window:,} leaves {self._ceiling:,} for it. Ask for less at once, or use a model with a "
                "larger window.",
            )
        self._trimming, self._sent = done.trimming, done.size
        return Fitted(
            messages=joined(done.blocks),
            before_tokens=self._scale.tokens(done.before),
            after_tokens=tokens,
            dropped=done.dropped,
            truncated=done.truncated,
            trimmed=done.dropped + done.truncated > 0,
            shortened=bool(done.trimming.kept),
            answer_tokens=self._answer,
        )

    def reported(self, input_tokens: int) -> None:
        if self._sent is not None:
            self._scale.learn(self._sent, input_tokens)

    def too_long(self) -> bool:
        if self._sent is None:
            return False
        # Below what was refused, not below what had been allowed: the window may be far smaller than was said.
        high = math.floor(min(self._high, self._scale.tokens(self._sent)) * LOWER)
        if self._trim(high).size >= self._sent:
            return False
        self._high = high
        return True

    def _trim(self, high: int) -> Trimmed:
        bounds = Bounds(
            fixed=self._fixed,
            high=self._scale.room(high),
            low=self._scale.room(math.floor(high * LOW / HIGH)),
            result=self._result,
        )
        return trimmed(self._blocks, self._trimming, bounds)
