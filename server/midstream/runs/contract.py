"""What `runs` asks of the layers above it, and what it tells them: programs, rules, limits, and why a run stopped.

`runs` imports neither agents nor gateways. An app hands in `Agents`; the actor gives each program a `Port`
(see port.py), which is all that agent code may touch of its run.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from msgspec import Struct

from midstream_protocol.commands import CancelAfter, ClientTool, InputBlock, RunLimits, Webhook
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
    on_abandon: Literal["continue", "pause"] | CancelAfter | None = None
    on_lag: Literal["continue", "pause"] | None = None
    webhook: Webhook | None = None


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


class GrantRecord(Struct, kw_only=True, frozen=True):
    """Journal kind `grant`, key = grant_id: when a grant for the run ends (Unix ms). Written only for one that does."""

    expires_ms: int


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
    emit_wait_s: float = 10.0
    """How long `emit` waits for room at most. Then it is let through: a provider whose stream is not read for longer
    would close it.
    """
    coalesce_ms: int = 40
    """Text deltas of one message that come within so many milliseconds of the one before become one event. The first
    goes at once. 0: each is an event of its own.
    """
    coalesce_bytes: int = 8 * 1024
    """Text that is gathered like that at most, before it goes without waiting for the end of the window."""
    gather_ms: float = 2.0
    """With `coalesce_ms` 0: deltas that come within so many milliseconds of the last write are written together, each
    an event still. Only a run that is faster than that waits at all.
    """
    lag_events: int = 1024
    """A reader that is further behind does not keep up (`on_lag`)."""
    max_run_events: int = 1_000_000
    max_run_bytes: int = 256 * 1024 * 1024
    """Of one run's log. At either it ends as `too_long`; its closings are written beyond it."""
    max_replay_events: int = 20_000
    max_replay_bytes: int = 16 * 1024 * 1024
    """A replay of more than either is replaced by a snapshot (`run.reset`, `too_far`), unless it is merged and fits."""
    max_readers: int = 10_000
    """Attaches of one run at once."""
    park_after_s: float = 30.0
    """A run that waits for people leaves the memory after so long, and comes back when it is needed. 0: never."""
    run_ttl_s: float = 0.0
    """An ended run is deleted after so long, with all beside it (0: never)."""
    compact_after_s: float = 0.0
    """An ended run's events are replaced by its snapshot and its last event after so long (0: never)."""
    retention_interval_s: float = 60.0
    """Between two looks for runs that are due to be deleted or compacted, and for dead letters that are."""
    max_dead_letters: int = 1_000
    """Of one principal; beyond, the oldest are dropped at the next look. At 3 KB each, what a page of them may hold."""
    dead_letter_ttl_s: float = 30 * 86_400.0
    """A dead letter is dropped after so long (0: never): who has not looked by then will not."""
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
    max_runs_per_user: int = 0
    """Of one principal in memory at once (0: no bound of its own)."""


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

    def delta(self, message_id: str, text: str) -> str | None:
        """What is shown of one text delta, where its text alone says so, without waiting. None: ask `passed`."""
        ...

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
