"""What `runs` asks of the layers above it, and what it tells them: programs, rules, limits, and why a run stopped.

`runs` imports neither agents nor gateways. An app hands in `Agents`; the actor gives each program a `Port`
(see port.py), which is all that agent code may touch of its run.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec import Struct

from midstream_protocol.commands import ClientTool, InputBlock, RunLimits
from midstream_protocol.errors import FieldError
from midstream_protocol.events import Payload, Resume

if TYPE_CHECKING:
    from midstream.runs.port import Port


class Principal(Struct, kw_only=True, frozen=True):
    """Who asks. `id` is opaque and stable; runs are namespaced by it. Raises ValueError for the id `system`."""

    id: str
    name: str

    def __post_init__(self) -> None:
        if self.id == "system":
            raise ValueError("the principal id “system” is the run's own: give people other ids")


class StartRecord(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """The first journal record of a run (kind `start`): all that its program may know before it begins.

    `secret` (hex) keys the run's argument digests. `previous` are the thread's ended runs, oldest first. `resume` is
    the id of the run that this one goes on with; `title` is the title that the thread had.
    """

    run_id: str
    thread_id: str
    agent: str
    principal: Principal
    input: str | list[InputBlock]
    secret: str
    created_ms: int
    client_id: str | None = None
    limits: RunLimits | None = None
    metadata: dict[str, Any] | None = None
    previous: tuple[str, ...] = ()
    resume: str | None = None
    title: str | None = None


GO_ON: Final = "Go on from where the run before stopped."
"""The input of a start that has none of its own, because it resumes a run."""


class CallRecord(Struct, kw_only=True, frozen=True):
    """Journal kind `call`, key = tool_call_id: what a call will really run with.

    Written with the event that first shows the call's arguments; written again when an approval edits them. The
    newest one counts: what was approved is what runs.
    """

    tool: str
    args: dict[str, Any]


class ResultRecord(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Journal kind `result`, key = tool_call_id: the whole answer of a call, whoever ran it: value or error.

    `value` is any JSON value; `error` the failure's code, `text` its text (also safe to show).
    """

    ok: bool
    value: Any = None
    error: str | None = None
    text: str | None = None


class AskedRecord(Struct, kw_only=True, frozen=True):
    """Journal kind `asked`, key = correction_id: what its sender wants beside what its event says. Written only when
    there is something.
    """

    replan: bool


class CorrectionRecord(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Journal kind `correction`, key = correction_id: a correction entered the conversation here. `replanned`: the
    plan is made anew for it.
    """

    text: str
    message_id: str
    replanned: bool = False


class Offered(Struct, kw_only=True, frozen=True):
    """Journal kind `offer`, key = client_id: that client hosts these tools from here on."""

    client_id: str
    tools: list[ClientTool]


class Limits(Struct, kw_only=True, frozen=True):
    """Bounds of the run layer; each is a setting of the server (see settings.py)."""

    output_lane: int = 256
    """Drafts that wait for the writer before `emit` waits."""
    beat_inputs: int = 512
    """Inputs decided in one beat: bounds the batch, and the time before the next is visible."""
    tail_events: int = 1024
    """Newest encoded events of a live run kept in memory for its readers."""
    tail_bytes: int = 512 * 1024
    cancel_grace_s: float = 5.0
    """How long a cancelled program may take to close what it has open."""
    drain_grace_s: float = 8.0
    """How long running turns may take to reach a safe point after the stop signal: containers are killed after 10."""
    max_pending_corrections: int = 16
    max_recoveries: int = 5
    """Recoveries of one run without progress before it ends as `crash_loop`."""
    max_input_bytes: int = 256 * 1024
    max_tool_result_bytes: int = 512 * 1024
    run_deadline_s: float = 86_400.0
    """A run's life at most, waiting included (0: no limit)."""
    app_changed_after_s: float = 10.0
    """How long a run waits for an agent that this server does not have before it ends as `app_changed`."""
    lease_ms: int = 86_400_000
    """A lease's life. Long, because the stores of one machine know by their file lock that an owner is gone."""
    recover_delay_s: float = 0.5
    """First wait before a run whose log failed is tried again; doubles up to `recover_max_delay_s`."""
    recover_max_delay_s: float = 15.0
    max_thread_history: int = 50
    """Runs of a thread whose messages a new run is given (a thread remembers 50)."""
    max_live_runs: int = 10_000


class Rules(Protocol):
    """Pure questions that `decide` asks about an agent and its tools."""

    @property
    def steerable(self) -> bool:
        """Whether corrections make sense for this agent."""
        ...

    def is_server_tool(self, tool: str) -> bool:
        """Whether the agent has a tool of this name that runs here; no client may take such a name."""
        ...

    def check_args(self, tool: str, args: Mapping[str, Any]) -> list[FieldError]:
        """What is wrong with these arguments (empty: nothing). Schema only."""
        ...

    def shown_args(self, tool: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as a client may see them."""
        ...

    def check_value(self, schema: Mapping[str, Any], value: object) -> list[FieldError]:
        """What is wrong with a value by a JSON Schema (answers to questions, tools that clients brought)."""
        ...


class Filter(Protocol):
    """What drafted events pass on their way out of a program (`Port.through`).

    May change what is shown of an event, never its type or its ids. None: it is not shown; only for what is merely
    shown (`port.EMITTED`).
    """

    async def passed(self, payload: Payload) -> Payload | None: ...

    def passed_now(self, payload: Payload) -> Payload | None:
        """The same without waiting for anything, for closings of cancelled work."""
        ...


class Program(Protocol):
    """One agent's work on one run."""

    async def run(self, port: "Port") -> None:
        """Do the work; end it with `port.end(result)` or by raising.

        Begins again after a crash with the journal so far (`port.journal`): continue at the first thing not done.
        Raises `RunFailure` for a failure with a code; any other exception fails the run as `internal`. `Stopping`
        and cancellation are let through.
        """
        ...


class Agents(Protocol):
    """The agents an app serves."""

    @property
    def default(self) -> str:
        """The agent of a start that names none."""
        ...

    def names(self) -> list[str]: ...

    def program(self, start: StartRecord) -> Program | None:
        """The program for this run; None if its agent does not exist (any more)."""
        ...

    def rules(self, agent: str) -> Rules | None: ...


class RunFailure(Exception):
    """Ends a run as `run.failed`. `text` is safe to show; details belong into the chained cause."""

    def __init__(self, code: str, text: str, *, retryable: bool = False, resume: Resume | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.retryable = retryable
        self.resume = resume


class Stopping(Exception):
    """The run is being cancelled, has ended, or its server is going down: begin nothing new, let this through."""


class CorrectionsPending(Exception):
    """`port.end` was refused: take `port.corrections(ending=True)` and go on."""


class CallCancelled(Exception):
    """That one call was cancelled: it begins nothing any more, and asks nobody. Nothing was written."""


class BadDraft(ValueError):
    """Agent code proposed an event that the order of events does not allow. A defect of that code."""


class _NoRules:
    """For a run whose agent is gone: it can be read and cancelled, and that is all."""

    steerable = False

    def is_server_tool(self, tool: str) -> bool:
        del tool
        return True

    def check_args(self, tool: str, args: Mapping[str, Any]) -> list[FieldError]:
        del tool, args
        return []

    def shown_args(self, tool: str, args: Mapping[str, Any]) -> dict[str, Any]:
        del tool, args
        return {}

    def check_value(self, schema: Mapping[str, Any], value: object) -> list[FieldError]:
        del schema, value
        return []


NO_RULES: Final[Rules] = _NoRules()
