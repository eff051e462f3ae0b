"""Asking a model for data: one silent call whose answer is a JSON value of a given schema. Nothing of it is shown."""

from typing import Any, Protocol

from msgspec import Struct

from midstream.agents.conversation import AssistantMessage, Message


class Question(Struct, kw_only=True, frozen=True):
    """`name` and `description` are of the tool by whose call the model answers; `schema` is JSON Schema of an object.
    `turn` counts the rounds of one question from 0.
    """

    agent: str
    system: str
    messages: tuple[Message, ...]
    name: str
    description: str
    schema: dict[str, Any]
    models: tuple[str, ...] = ()
    max_tokens: int = 4_096
    turn: int = 0
    step_id: str | None = None


class NoAnswer(Exception):
    """The model answered, and it is no JSON value of that schema. `text` says what is wrong, in words for the model;
    `message` is what it said.
    """

    def __init__(self, text: str, message: AssistantMessage) -> None:
        super().__init__(text)
        self.text = text
        self.message = message


class Asks(Protocol):
    """A way to ask. `asking.Asker` is the real one."""

    async def ask(self, question: Question) -> Any:
        """The answer: valid by the schema. Raises `NoAnswer`, `RunFailure` when no model can be had, `Stopping`."""
        ...
