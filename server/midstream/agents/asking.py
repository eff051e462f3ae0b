"""Asking a model for data: one silent call whose answer is a JSON value of a given schema. Nothing of it is shown but
that it has to be tried again.
"""

from collections.abc import Iterator
from contextlib import aclosing
from typing import Any, Final, Literal, Protocol

from msgspec import Struct

from midstream.agents.conversation import AssistantMessage, Call, Message, Text, UserMessage, calls_of, repaired
from midstream.agents.definition import AgentLimits
from midstream.agents.json_answer import values_in
from midstream.agents.limiter import Limiter
from midstream.agents.models import Models, Tries
from midstream.agents.providers.contract import (
    Finished,
    ModelError,
    ModelFailed,
    ModelRequest,
    Opened,
    Provider,
    TokenUsage,
    ToolSpec,
)
from midstream.agents.recovery import GiveUp, Shrink, give_up
from midstream.agents.tools.validate import check_value, in_words
from midstream.agents.usage import used_by
from midstream.runs.contract import RunFailure
from midstream.runs.port import Port
from midstream.telemetry import count_model_call
from midstream_protocol.events import RunStatusChanged

VALUE: Final = "value"
"""The argument that holds an answer which is no object."""

_CUT_OFF: Final = ("max_tokens", "model_context_window_exceeded")


class Question(Struct, kw_only=True, frozen=True):
    """`name` and `description` are of the tool by whose call the model answers; `schema` is JSON Schema of the answer.
    `turn` counts the rounds of one question from 0. `phase` and `doing` say what the run does, for people, after it had
    to be asked again.
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
    phase: Literal["planning", "working"] = "planning"
    doing: str = "Planning"


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


class Asker:
    """Asks for one run (`Asks`). Questions may be asked at the same time; leaving one closes its connection."""

    def __init__(
        self,
        *,
        port: Port,
        provider: Provider,
        limiter: Limiter,
        limits: AgentLimits,
        model: str,
        idle_timeout_s: float,
    ) -> None:
        """`model` answers where a question names none."""
        self._port = port
        self._provider = provider
        self._limiter = limiter
        self._limits = limits
        self._model = model
        self._idle_timeout_s = idle_timeout_s
        self._models: dict[tuple[str, ...], Models] = {}

    async def ask(self, question: Question) -> Any:
        """As `Asks.ask`. A question that is too long for the model is asked with less of its older messages."""
        models = self._models_for(question)
        tries = Tries(self._port, models)
        messages = question.messages
        while True:
            try:
                await self._admitted(tries, question)
                finished = await self._answer(tries, models, self._request(question, messages, models))
            except ModelError as error:
                measure = tries.measure(error)
                if isinstance(measure, Shrink):
                    messages, before = newest_half(messages), messages
                    measure = measure if len(messages) < len(before) else give_up(error)
                if isinstance(measure, GiveUp):
                    raise RunFailure(measure.code, measure.text, retryable=measure.retryable) from error
                await tries.recover(measure, step_id=question.step_id)
            else:
                return answer_in(finished, question)

    def _models_for(self, question: Question) -> Models:
        names = question.models or (self._model,)
        if names not in self._models:
            # Kept, so that a model that cannot be had is not asked again in this run.
            self._models[names] = Models(self._provider, names, self._limiter, self._limits, self._idle_timeout_s)
        return self._models[names]

    def _request(self, question: Question, messages: tuple[Message, ...], models: Models) -> ModelRequest:
        schema, _ = as_arguments(question.schema)
        tool = ToolSpec(name=question.name, description=question.description, input_schema=schema)
        return ModelRequest(
            model=models.name,
            system=question.system,
            messages=messages,
            tools=(tool,),
            max_tokens=question.max_tokens,
            idle_timeout_s=models.idle_timeout_s,
            conversation_id=self._port.start.thread_id,
            agent=question.agent,
            turn=question.turn,
            must_call=question.name,
        )

    async def _admitted(self, tries: Tries, question: Question) -> None:
        await tries.admitted(step_id=question.step_id)
        self._port.check()
        if (tries.count > 1 or tries.told) and not self._port.waiting:
            status = RunStatusChanged(status="running", phase=question.phase, text=question.doing)
            await self._port.emit(status, step_id=question.step_id)

    async def _answer(self, tries: Tries, models: Models, request: ModelRequest) -> Finished:
        model, used = models.name, TokenUsage()
        outcome = "cancelled"
        try:
            async with aclosing(models.provider.stream(request)) as stream:
                async for event in stream:
                    if isinstance(event, Opened):
                        tries.opened()
                        model, used = event.model, event.usage
                    elif isinstance(event, Finished):
                        used, outcome = event.usage, "answered"
                        return event
            raise ModelFailed("The model's answer ended without an end.")
        except ModelError:
            # Counted where it is measured.
            outcome = ""
            raise
        finally:
            if outcome:
                count_model_call(outcome)
            if used != TokenUsage():
                # Posted: what it has cost is known also of a call that is being cancelled.
                self._port.post(used_by(used, model=model))


def as_arguments(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The schema as one of a tool's arguments, which are an object; whether the answer is wrapped for that, as
    `VALUE` of it.
    """
    definitions = schema.get("$defs")
    known = definitions if isinstance(definitions, dict) else {}
    # What is generated from a type is often only a reference at the top, which servers do not look behind.
    named = known.get(str(schema.get("$ref", "")).removeprefix("#/$defs/"))
    if isinstance(named, dict):
        schema = {**named, "$defs": known}
    if schema.get("type") == "object":
        return schema, False
    inner = {name: value for name, value in schema.items() if name != "$defs"}
    whole: dict[str, Any] = {"type": "object", "properties": {VALUE: inner}, "required": [VALUE]}
    return ({**whole, "$defs": known} if known else whole), True


def newest_half(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The newer half of a conversation, beginning with a user's word; as it was when it has no such half."""
    for index in range((len(messages) + 1) // 2, len(messages)):
        message = messages[index]
        if isinstance(message, UserMessage) and any(isinstance(part, Text) for part in message.parts):
            return tuple(repaired(messages[index:]))
    return messages


def answer_in(finished: Finished, question: Question) -> Any:
    """The first value of the question's schema in an answer. Raises `NoAnswer`."""
    message = AssistantMessage(parts=finished.parts)
    wrong: list[str] = []
    _, wrapped = as_arguments(question.schema)
    for found in _candidates(message, question.name):
        value = found[VALUE] if wrapped and isinstance(found, dict) and set(found) == {VALUE} else found
        value = listed(question.schema, value)
        errors = check_value(question.schema, value)
        if not errors:
            return value
        if not wrong:
            wrong.append(f"Your answer does not fit what was asked for:\n{in_words(errors)}")
    if finished.stop_reason in _CUT_OFF:
        raise NoAnswer("Your answer was cut off by its length limit. Give a shorter one.", message)
    raise NoAnswer(
        wrong[0] if wrong else f"There was no JSON object in your answer. Call `{question.name}` with it.", message
    )


def listed(schema: dict[str, Any], value: Any) -> Any:
    """A list where an object was asked for that holds nothing but one: the object is meant."""
    needed = schema.get("required")
    if not isinstance(value, list) or schema.get("type") != "object" or not isinstance(needed, list):
        return value
    one = schema.get("properties", {}).get(needed[0], {}) if len(needed) == 1 else {}
    return {needed[0]: value} if one.get("type") == "array" else value


def _candidates(message: AssistantMessage, name: str) -> Iterator[Any]:
    # The call that was asked for first, then any other: some models invent a name.
    for call in sorted(calls_of(message), key=lambda call: call.tool != name):
        yield from _arguments(call)
    yield from values_in("".join(part.text for part in message.parts if isinstance(part, Text)))


def _arguments(call: Call) -> Iterator[Any]:
    if call.args is not None:
        yield call.args
    elif call.raw is not None:
        yield from values_in(call.raw)
