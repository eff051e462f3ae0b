"""What a client asks for: one struct per command type, and the envelope that carries it.

Run-scoped commands happen once per `command_id` and have exactly one effect event. The ones in
`CONNECTION_COMMANDS` belong to the connection: executed each time, never remembered.
"""

from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import Meta, Struct

from midstream_protocol.events import CancelMode, CorrectionMode
from midstream_protocol.ids import ID_PATTERN
from midstream_protocol.limits import MAX_CLIENT_TOOLS, MAX_INTEGER, MAX_TEXT_CHARS

# `$` alone also accepts a trailing newline; the lookahead refuses it.
Id = Annotated[str, Meta(pattern=ID_PATTERN + r"(?!\n)")]
Seq = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
Reason = Annotated[str, Meta(max_length=MAX_TEXT_CHARS)]
Seconds = Annotated[float, Meta(ge=0, le=31_536_000)]


class CommandPayload(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """The body of one command. `TYPE` is its name on the wire."""

    TYPE: ClassVar[str] = ""


class TextBlock(Struct, kw_only=True, omit_defaults=True, frozen=True, tag="text", tag_field="type"):
    text: str


class ImageBlock(Struct, kw_only=True, omit_defaults=True, frozen=True, tag="image", tag_field="type"):
    """`data` is base64; exactly one of `data` and `url`."""

    media_type: str
    data: str | None = None
    url: str | None = None


class FileBlock(Struct, kw_only=True, omit_defaults=True, frozen=True, tag="file", tag_field="type"):
    """`data` is base64; exactly one of `data` and `url`."""

    media_type: str
    data: str | None = None
    url: str | None = None


InputBlock = TextBlock | ImageBlock | FileBlock


class ClientTool(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """A tool that the offering client runs. One the agent declares needs only its `name`; a new one brings the rest."""

    name: Id
    description: Annotated[str, Meta(max_length=MAX_TEXT_CHARS)] | None = None
    input_schema: dict[str, Any] | None = None


ClientTools = Annotated[list[ClientTool], Meta(max_length=MAX_CLIENT_TOOLS)]


class RunLimits(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """Bounds a caller puts on its own run; each can only lower the server's."""

    max_turns: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    max_tool_calls: Annotated[int, Meta(ge=0, le=100_000)] | None = None
    deadline_s: Annotated[float, Meta(gt=0, le=31_536_000)] | None = None


class CancelAfter(Struct, kw_only=True, frozen=True):
    """`on_abandon: {"cancel_after_s": 30}`: cancel when nobody has been attached for that long."""

    cancel_after_s: Seconds


WebhookEvent = Literal["run.completed", "run.failed", "run.cancelled", "approval.required", "input.required"]


class Webhook(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """Where the server tells of this run by HTTP, beside the places its operator named. `events` None: the server's
    own choice.
    """

    url: Annotated[str, Meta(min_length=8, max_length=2048)]
    events: Annotated[list[WebhookEvent], Meta(min_length=1, max_length=8)] | None = None


class ResumeFrom(Struct, kw_only=True, frozen=True):
    """What `run.failed.resume` gave. Only the run matters; what else it said is passed over."""

    run_id: Id


class RunStart(CommandPayload, kw_only=True, frozen=True):
    """`input` may be left out only with `resume`."""

    TYPE = "run.start"
    input: str | list[InputBlock] | None = None
    agent: Id | None = None
    run_id: Id | None = None
    thread_id: Id | None = None
    if_busy: Literal["reject", "queue", "correct", "parallel"] | None = None
    resume: ResumeFrom | None = None
    client_tools: ClientTools | None = None
    limits: RunLimits | None = None
    on_abandon: Literal["continue", "pause"] | CancelAfter | None = None
    on_lag: Literal["continue", "pause"] | None = None
    webhook: Webhook | None = None
    metadata: dict[str, Any] | None = None


class RunAttach(CommandPayload, kw_only=True, frozen=True):
    TYPE = "run.attach"
    since_seq: Seq = 0
    epoch: str | None = None
    replay: Literal["full", "merged", "snapshot"] | None = None
    client_tools: ClientTools | None = None


class RunDetach(CommandPayload, kw_only=True, frozen=True):
    TYPE = "run.detach"


class RunCancel(CommandPayload, kw_only=True, frozen=True):
    TYPE = "run.cancel"
    mode: CancelMode = "now"
    tool_call_id: Id | None = None
    reason: Reason | None = None


class RunCorrect(CommandPayload, kw_only=True, frozen=True):
    TYPE = "run.correct"
    text: Annotated[str, Meta(min_length=1)]
    mode: CorrectionMode = "next_step"
    step_id: Id | None = None
    replan: bool | None = None
    if_ended: Literal["reject", "start"] | None = None


class CorrectionRevoke(CommandPayload, kw_only=True, frozen=True):
    TYPE = "correction.revoke"
    correction_id: Id


class Remember(Struct, kw_only=True, omit_defaults=True, frozen=True):
    scope: Literal["run", "thread", "always"]
    expires_in_s: Seconds | None = None


class ApprovalRespond(CommandPayload, kw_only=True, frozen=True):
    """`args` replace top-level arguments; they are validated before the answer is accepted."""

    TYPE = "approval.respond"
    approval_id: Id
    decision: Literal["approve", "deny"]
    args: dict[str, Any] | None = None
    args_digest: str | None = None
    reason: Reason | None = None
    remember: Remember | None = None


class InputRespond(CommandPayload, kw_only=True, frozen=True):
    TYPE = "input.respond"
    input_id: Id
    answer: Any


class ToolError(Struct, kw_only=True, frozen=True):
    code: Annotated[str, Meta(max_length=64)]
    text: Annotated[str, Meta(max_length=MAX_TEXT_CHARS)]


class ToolProgressReport(Struct, kw_only=True, omit_defaults=True, frozen=True):
    text: Reason | None = None
    fraction: Annotated[float, Meta(ge=0, le=1)] | None = None


class ToolResult(CommandPayload, kw_only=True, frozen=True):
    """The answer of a client-run tool; with `progress` alone it is a sign of work, and the call stays open."""

    TYPE = "tool.result"
    tool_call_id: Id
    ok: bool | None = None
    result: Any = None
    error: ToolError | None = None
    progress: ToolProgressReport | None = None


class ToolsOffer(CommandPayload, kw_only=True, frozen=True):
    TYPE = "tools.offer"
    run_id: Id
    client_tools: ClientTools


class AuthRefresh(CommandPayload, kw_only=True, frozen=True):
    TYPE = "auth.refresh"
    token: str


class Ping(CommandPayload, kw_only=True, frozen=True):
    TYPE = "ping"
    t: Any = None


COMMANDS: Final[dict[str, type[CommandPayload]]] = {cls.TYPE: cls for cls in CommandPayload.__subclasses__()}
"""Every command type by its wire name."""

CONNECTION_COMMANDS: Final = frozenset({RunAttach.TYPE, RunDetach.TYPE, ToolsOffer.TYPE, AuthRefresh.TYPE, Ping.TYPE})
"""Executed each time, never remembered, never resent after a reconnect."""


class Command(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """One command as it was decoded: `payload` is the struct of its `type`. `run_id` is absent in `run.start`,
    where the payload has it; `command_id` is empty in a `ping` that had none.
    """

    type: str
    command_id: str
    payload: CommandPayload
    run_id: str | None = None
