"""Agents that bring their own loop: `@agent("x") async def x(run: Run) -> …`.

After a crash the function is run again from its start. What it did through `run` is not done again: each `say`,
`call`, `ask`, `once` and `corrections` that the journal has returns what it returned before, found by its order (or
its key). So everything that may come out differently a second time - a clock, a random number, a request - goes
through `run.once`, and everything with an effect through `run.call`.
"""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import isawaitable, iscoroutinefunction, signature
from typing import Any, Final, get_type_hints

import msgspec

from midstream.agents.conversation import AssistantMessage, Call, Text
from midstream.agents.crew import Shared
from midstream.agents.definition import check_declared
from midstream.agents.executor import passed
from midstream.agents.outflow.outflow import Passage
from midstream.agents.speech import Speech, SpeechStyle
from midstream.agents.steps import begin_step, ended
from midstream.agents.tools.context import ToolError, checked_object
from midstream.agents.tools.definition import DEFAULT_APPROVAL_S, Tool
from midstream.agents.tools.runtime import Runtime
from midstream.agents.tools.signature import BadTool
from midstream.agents.tools.toolbox import Toolbox
from midstream.agents.tools.validate import is_schema
from midstream.agents.transcript import input_text
from midstream.log import JournalRecord
from midstream.runs.contract import CallRecord, CorrectionRecord, Principal, RunFailure
from midstream.runs.port import Port
from midstream_protocol.codec import iso_ms, json_safe
from midstream_protocol.commands import InputBlock, TextBlock
from midstream_protocol.events import InputRequired, ObjectCreated, Payload, RunStatusChanged

MAX_STATUS_CHARS: Final = 500


class ToolCallError(Exception):
    """A call of `Run.call` did not succeed. `code` is that of its `tool.failed`, `text` is safe to show."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class Run:
    """One run, for an own loop. All methods raise `Stopping` when the run is to stop: let it through."""

    def __init__(
        self,
        *,
        port: Port,
        agent: str,
        tools: Mapping[str, Tool],
        resources: Mapping[type, Any],
        way_out: Passage,
    ) -> None:
        start = port.start
        self.run_id: Final = start.run_id
        self.thread_id: Final = start.thread_id
        self.principal: Final[Principal] = start.principal
        self.metadata: Final[dict[str, Any]] = start.metadata or {}
        self.input: Final = input_text(start.input)
        """The text of the run's input."""
        self.blocks: Final[Sequence[InputBlock]] = (
            (TextBlock(text=start.input),) if isinstance(start.input, str) else tuple(start.input)
        )
        self._port = port
        self._agent = agent
        self._tools = tools
        self._runtime = Runtime(port=port, toolbox=Toolbox(tools, port), resources=resources, secrets=way_out.secrets)
        self._hide = way_out.secrets.hide
        self._style = SpeechStyle(text_filter=way_out.text_filter(lambda: {*tools, *port.client_tools}))
        self._step_id: str | None = None
        self._counts: dict[str, int] = {}
        self._said = sum(1 for record in port.journal if record.kind == "message")
        self._calls = _decoded(port, "call", CallRecord)
        self._kept: dict[str, Any] = {
            record.key: msgspec.json.decode(record.data) for record in port.journal if record.kind == "once"
        }
        self._taken = {key: record.text for key, record in _decoded(port, "correction", CorrectionRecord).items()}
        self._locks: dict[str, asyncio.Lock] = {}

    async def say(self, text: str | AsyncIterable[str]) -> None:
        """One message to the user, as it comes if `text` comes in pieces."""
        if self._next("say") <= self._said:
            return
        speech = Speech(port=self._port, agent=self._agent, toolbox=None, step_id=self._step_id, style=self._style)
        try:
            await speech.begin()
            if isinstance(text, str):
                await speech.say(text)
            else:
                async for piece in text:
                    await speech.say(piece)
            message = AssistantMessage(parts=(Text(text=speech.text),))
            await speech.complete(message, stop_reason="end_turn", usage=None)
        finally:
            speech.leave()

    async def call(self, tool: Tool | str, /, **args: Any) -> Any:
        """Run a tool with everything that belongs to it: validation, approval, timeout, record.

        Returns its result as JSON, so that it is the same when it comes from the journal. Raises `ToolCallError`.
        """
        name = tool if isinstance(tool, str) else tool.name
        if name not in self._tools and self._port.host_of(name) is None:
            raise BadTool(f"agent {self._agent} has no tool called {name}: give it to @agent(…, tools=[…])")
        call_id = f"call_{self._next('call')}"
        before = self._calls.get(call_id)
        if before is not None and before.tool != name:
            raise RunFailure(
                "not_deterministic", f"The agent called {before.tool} before it was interrupted, and {name} after."
            )
        call = Call(id=call_id, provider_id=call_id, tool=name, args=json_safe(args))
        record = await self._runtime.run(call, message_id=None, step_id=self._step_id)
        if not record.ok:
            raise ToolCallError(record.error or "tool_error", record.text or "The call failed.")
        return record.value

    async def ask(
        self,
        question: str,
        *,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        timeout: float = DEFAULT_APPROVAL_S,  # noqa: ASYNC109 - the run's own clock, and it survives a restart
    ) -> Any:
        """Ask the user and wait for the answer: one of `choices`, what fits the JSON `schema`, or anything.

        Raises `TimeoutError` when nobody answered within `timeout` seconds.
        """
        if schema is not None and not is_schema(schema):
            raise BadTool("run.ask: this is no JSON Schema")
        port = self._port
        required = InputRequired(
            input_id=f"input_{self._next('ask')}",
            question=question,
            choices=list(choices) if choices is not None else None,
            schema=dict(schema) if schema is not None else None,
            expires_at=iso_ms(port.clock.now_ms() + round(timeout * 1000)),
            expires_in_s=timeout,
        )
        answer = await port.ask(required, step_id=self._step_id)
        if answer.decision != "answered":
            # Withdrawn because the run is to stop: that is not the silence that the agent may have a plan for.
            port.check()
            raise TimeoutError("nobody answered the question")
        return answer.value

    async def corrections(self) -> list[str]:
        """What the user has said since the last time. Each is given once."""
        key = f"corrections:{self._next('corrections')}"
        if key not in self._kept:
            known = {each for name, ids in self._kept.items() if name.startswith("corrections:") for each in ids}
            # Taken by the program before this one, which died before it could say who got them.
            ids = [each for each in self._taken if each not in known]
            for correction in await self._port.corrections(step_id=self._step_id or "", ending=True):
                self._taken[correction.correction_id] = correction.text
                ids.append(correction.correction_id)
            await self._keep(key, ids)
        return [self._taken[each] for each in self._kept[key]]

    async def once(self, key: str, fn: Callable[[], Any | Awaitable[Any]]) -> Any:
        """The result of `fn()`, computed once in the run's life and kept as JSON under `key`.

        A crash while it computes computes it again: what has an effect belongs into a tool.
        """
        name = f"once:{key}"
        async with self._locks.setdefault(name, asyncio.Lock()):
            if name not in self._kept:
                value = fn()
                await self._keep(name, json_safe(await value if isawaitable(value) else value))
        return self._kept[name]

    async def object(self, kind: str, data: Any, *, object_id: str | None = None) -> str:
        """Show something structured, once: `kind` says to clients what the JSON in `data` is. Returns its id.

        The same `object_id` again replaces it. Raises `BadTool` for what cannot be an object.
        """
        count = self._next("object")
        key = f"object:{count}"
        if key not in self._kept:
            object_id = object_id or f"obj_{count}"
            try:
                safe = checked_object(kind, data, object_id)
            except ToolError as error:
                raise BadTool(f"run.object: {error.text}") from error
            await self._keep(key, object_id, ObjectCreated(object_id=object_id, kind=kind, data=self._hide(safe)))
        return str(self._kept[key])

    async def status(self, text: str) -> None:
        """Say what the run does now."""
        shown = str(json_safe(text))[:MAX_STATUS_CHARS]
        await self._port.emit(RunStatusChanged(status="running", phase="working", text=shown), step_id=self._step_id)

    async def progress(self, text: str, *, fraction: float) -> None:
        """Say what the run does now, and how much of it is done (`fraction` of 1)."""
        await self.status(f"{text} ({min(1.0, max(0.0, fraction)):.0%})")

    def _next(self, what: str) -> int:
        count = self._counts[what] = self._counts.get(what, 0) + 1
        return count

    async def _keep(self, key: str, value: Any, *shown: Payload) -> None:
        kept = JournalRecord(kind="once", key=key, data=msgspec.json.encode(value))
        await self._port.record(*shown, journal=[kept], step_id=self._step_id if shown else None)
        self._kept[key] = value

    def enter(self, step_id: str) -> None:
        """For the program: what follows belongs to this step."""
        self._step_id = step_id


OwnLoop = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, kw_only=True)
class OwnAgent:
    """An agent made by `agent`. `injected` maps its function's parameters to the resources they want."""

    name: str
    fn: OwnLoop
    tools: tuple[Tool, ...]
    steerable: bool
    description: str
    run_parameter: str
    injected: dict[str, type]


def agent(
    name: str, *, tools: Sequence[Tool] = (), steerable: bool = False, description: str = ""
) -> Callable[[OwnLoop], OwnAgent]:
    """Declare an agent with a loop of its own: an `async` function of one `Run`, and of the app's resources by type.

    What it returns is the run's result. `steerable`: it looks at `run.corrections()`; without, corrections are
    refused. Raises `BadTool`.
    """
    check_declared(name, tools)

    def declare(fn: OwnLoop) -> OwnAgent:
        if not iscoroutinefunction(fn):
            raise BadTool(f"agent {name}: its loop must be an async function")
        hints = get_type_hints(fn)
        parameters = {each: hints.get(each) for each in signature(fn).parameters}
        runs = [each for each, hint in parameters.items() if hint is Run]
        untyped = [each for each, hint in parameters.items() if not isinstance(hint, type)]
        if len(runs) != 1 or untyped:
            raise BadTool(f"agent {name}: its loop takes one `run: Run`, and resources by their type")
        return OwnAgent(
            name=name,
            fn=fn,
            tools=tuple(tools),
            steerable=steerable,
            description=description,
            run_parameter=runs[0],
            injected={each: hint for each, hint in parameters.items() if isinstance(hint, type) and hint is not Run},
        )

    return declare


class OwnProgram:
    """An own loop's work on one run (`runs.contract.Program`)."""

    def __init__(self, own: OwnAgent, *, shared: Shared) -> None:
        self._own = own
        self._shared = shared
        self._resources = shared.resources

    async def run(self, port: Port) -> None:
        way_out = self._shared.outlet.passage(port, agent=self._own.name)
        port.through(way_out)
        try:
            await self._run(port, way_out)
        except RunFailure as failure:
            raise await passed(failure, way_out) from failure.__cause__

    async def _run(self, port: Port, way_out: Passage) -> None:
        own = self._own
        run = Run(
            port=port,
            agent=own.name,
            tools={tool.name: tool for tool in own.tools},
            resources=self._resources,
            way_out=way_out,
        )
        port.check()
        step = await begin_step(port, agent=own.name, title="Continuing" if port.recovered else "Working")
        run.enter(step.step_id)
        given = {name: self._resources[kind] for name, kind in own.injected.items()}
        result = await own.fn(**{own.run_parameter: run}, **given)
        await port.record(ended(step, "completed"), step_id=step.step_id)
        # It has returned: what comes now it cannot use.
        await port.end(await way_out.leaving(json_safe(result)), return_corrections=True)


def _decoded(port: Port, kind: str, type_: type[Any]) -> dict[str, Any]:
    return {record.key: msgspec.json.decode(record.data, type=type_) for record in port.journal if record.kind == kind}
