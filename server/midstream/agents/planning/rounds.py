"""One part of planning, asked: within its time, once more if its answer cannot be used, and with every way to fail
told apart.
"""

from collections.abc import Callable, Coroutine
from inspect import isawaitable
from typing import Any, Final, TypeVar

import msgspec

from midstream.agents.asking import Asks, NoAnswer, Question
from midstream.agents.conversation import AssistantMessage, Call, Message, Text, UserMessage
from midstream.agents.in_time import in_time
from midstream.agents.tools.shown import bounded
from midstream.clock import Clock
from midstream.logs import Logger
from midstream.runs.contract import RunFailure, Stopping
from midstream_protocol.codec import json_safe
from midstream_protocol.ids import new_id

T = TypeVar("T")

_log = Logger("midstream.agents")

ROUNDS: Final = 2
"""Times that a part is asked: an answer that cannot be used is given back once."""

_MAX_LOGGED: Final = 1_000
"""Characters of what was wrong with an answer, in the log."""

_MAX_SAID: Final = 20_000
"""Characters of an answer that is given back."""


class PartFailed(Exception):
    """A part of planning came to nothing. `text` ends a sentence that begins with its name, and is safe to show."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


async def within(clock: Clock, seconds: float, work: Callable[[], Coroutine[Any, Any, T]], *, name: str) -> T:
    """What `work` returns, in time. Raises `PartFailed` when it is late or fails, `Stopping`.

    A failure of an app's function is logged with an id, and nobody else is told what it was.
    """
    late = PartFailed(f"took longer than {seconds:g} s")
    try:
        return await in_time(work, clock=clock, seconds=seconds, name=name, late=late)
    except (Stopping, PartFailed):
        raise
    except RunFailure as failure:
        raise PartFailed(f"failed ({failure.code})") from failure
    except Exception as error:
        error_id = new_id("err")
        _log.error("a part of planning failed", part=name, error_id=error_id, exc_info=error)
        raise PartFailed(f"failed ({error_id})") from error


async def answered(asks: Asks, question: Question, read: Callable[[Any], T]) -> T:
    """What `read` makes of a model's answer. Raises `PartFailed` when it cannot be used the second time either.

    `read` raises ValueError with what is wrong with it, in words for the model.
    """
    for turn in range(ROUNDS):
        try:
            said = await asks.ask(msgspec.structs.replace(question, turn=question.turn + turn))
        except NoAnswer as refused:
            words, wrong = _words(refused.message), refused.text
        else:
            try:
                return read(said)
            except ValueError as refused:
                words, wrong = msgspec.json.encode(json_safe(said)).decode(), str(refused)
        question = msgspec.structs.replace(question, messages=(*question.messages, *_given_back(words, wrong)))
    _log.warning(
        "an answer cannot be used", agent=question.agent, tool=question.name, wrong=bounded(wrong, _MAX_LOGGED)
    )
    raise PartFailed("gave no answer that can be used")


async def called(fn: Callable[..., Any], *given: Any) -> Any:
    """What an app's function returns, async or not."""
    value = fn(*given)
    return await value if isawaitable(value) else value


def _given_back(words: str, wrong: str) -> tuple[Message, Message]:
    said = AssistantMessage(parts=(Text(text=bounded(words, _MAX_SAID) or "(nothing)"),))
    text = f"This answer cannot be used:\n{wrong}\nFix your output: give the whole answer again."
    return said, UserMessage(parts=(Text(text=text),))


def _words(message: AssistantMessage) -> str:
    """What a message says, its calls as they were written: as text, so that no call waits for a result."""
    words = []
    for part in message.parts:
        if isinstance(part, Text):
            words.append(part.text)
        elif isinstance(part, Call):
            words.append(part.raw if part.raw is not None else msgspec.json.encode(part.args).decode())
    return "\n".join(words)
