"""What the context budget works on: a conversation whose parts are marked by what may go."""

from typing import Literal, Protocol

from msgspec import Struct

from midstream.agents.conversation import Message

Kind = Literal["history", "request", "brief", "correction", "turn", "result", "note"]


class Entry(Struct, kw_only=True, frozen=True):
    """One message of a conversation, before `repaired`. `request`, `brief` (the plan) and `correction` never go."""

    message: Message
    kind: Kind

    @property
    def critical(self) -> bool:
        return self.kind in ("request", "brief", "correction")


class Fitted(Struct, kw_only=True, frozen=True):
    """What goes to the model, and what `context.trimmed` tells when `trimmed`: this call did more than the one before.

    `before_tokens` is what would have gone without that, `dropped` counts the messages and `truncated` the results it
    touched (both 0 otherwise). `shortened`: some result is not whole, so the tool `read_result` is offered.
    `answer_tokens`: what the answer may have at most so that both fit the window; None: as much as the agent says.
    """

    messages: tuple[Message, ...]
    before_tokens: int
    after_tokens: int
    dropped: int
    truncated: int
    trimmed: bool
    shortened: bool = False
    answer_tokens: int | None = None


class Fits(Protocol):
    """The budget as the loop knows it: one for each conversation with a model."""

    def fit(self, entries: list[Entry], *, fixed_tokens: int) -> Fitted:
        """The conversation under the budget, valid for a model. `fixed_tokens`: system text and tools, as
        `tokens.fixed_tokens` estimates them. Of a conversation that only grows, what is left out stays left out.

        Raises `RunFailure` `context_too_long` when what must not go is too long by itself.
        """
        ...

    def reported(self, input_tokens: int) -> None:
        """What the provider counted for the last `fit`, system text and tools included: the estimate learns from it."""
        ...

    def too_long(self) -> bool:
        """The model said that it was too long after all: aim lower. False: it cannot be made shorter."""
        ...
