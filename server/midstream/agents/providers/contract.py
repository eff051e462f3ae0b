"""What a model provider must do. One adapter file imports one vendor's SDK; everything else sees this.

Laws (each has a test in the contract suite):

1. Text is yielded as it arrives; a tool call's arguments only in `Finished`, when the message is complete.
2. The stream ends with exactly one `Finished`, or raises a `ModelError`. Nothing else is raised, but cancellation.
3. Leaving the stream early (cancellation, `aclose`) closes the connection to the model before it returns.
4. When the model sends nothing for `idle_timeout_s`, `ModelStalled` is raised.
5. A call whose arguments were cut off or are no JSON object comes with `args=None`; the loop never executes it.
6. With `must_call` the model is made to call that tool, where its provider can; who asks must bear that it does not.
"""

from collections.abc import AsyncGenerator
from typing import Any, ClassVar, Final, Protocol

from msgspec import Struct

from midstream.agents.conversation import AssistantPart, Message

DEFAULT_IDLE_TIMEOUT_S: Final = 60.0
"""Long enough for a local model that reads a long prompt, short enough for a person who waits."""


class ToolSpec(Struct, kw_only=True, frozen=True):
    """A tool as the model is told of it. `input_schema` is JSON Schema of an object."""

    name: str
    description: str
    input_schema: dict[str, Any]


class ModelRequest(Struct, kw_only=True, frozen=True):
    """One call of a model. `messages` are already repaired. `conversation_id` is for traces only.

    `agent` and `turn` say who asks, and for which time in this piece of its work (from 0): for scripts and traces.
    `must_call`: the tool that the answer has to be a call of.
    """

    model: str
    system: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    max_tokens: int = 4096
    idle_timeout_s: float = DEFAULT_IDLE_TIMEOUT_S
    conversation_id: str = ""
    agent: str = ""
    turn: int = 0
    must_call: str | None = None


class TokenUsage(Struct, kw_only=True, frozen=True):
    """Tokens of one call. `cached_input_tokens` are part of `input_tokens`."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0


class Opened(Struct, kw_only=True, frozen=True):
    """The model began to answer. `model` is the name it gives itself."""

    model: str
    usage: TokenUsage


class TextDelta(Struct, kw_only=True, frozen=True):
    text: str


class ReasoningDelta(Struct, kw_only=True, frozen=True):
    text: str


class Cited(Struct, kw_only=True, frozen=True):
    """The model names a source of its text. `data`: `cited_text`, `title`, `url` or `source`, and where in it (`unit`,
    `start`, `end`), as far as they are known; nothing in it is the provider's own.
    """

    data: dict[str, Any]


class CallOpened(Struct, kw_only=True, frozen=True):
    """The model began to write a call. `id` is the one its `Call` part will have in `Finished`."""

    id: str
    tool: str


class Finished(Struct, kw_only=True, frozen=True):
    """The whole message. `stop_reason` as the provider says it: `end_turn` `tool_use` `max_tokens` `stop_sequence`
    `pause_turn` `refusal` `model_context_window_exceeded` …
    """

    stop_reason: str
    parts: tuple[AssistantPart, ...]
    usage: TokenUsage


ModelEvent = Opened | TextDelta | ReasoningDelta | Cited | CallOpened | Finished


class Provider(Protocol):
    """A way to reach a model."""

    @property
    def name(self) -> str:
        """For people: `anthropic`, `local`, `scripted`."""
        ...

    @property
    def default_model(self) -> str:
        """The model used when nothing names one ("" if one must be named)."""
        ...

    def window(self, model: str) -> int | None:
        """Tokens that a model of this name reads at most, its answer included; None: not known."""
        ...

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """One answer of the model, as it comes."""
        ...

    async def aclose(self) -> None:
        """Close connections and child processes. May be called twice."""
        ...


class ModelError(Exception):
    """Why a model did not answer. `text` is safe to show; details are in `__cause__`.

    ModelError               code               retryable
    ├── ModelRateLimited     rate_limited       yes    `retry_after_s` if the provider said one
    ├── ModelOverloaded      overloaded         yes
    ├── ModelUnreachable     model_unreachable  yes    no connection, or it broke
    ├── ModelStalled         model_stalled      yes    nothing came for idle_timeout_s
    ├── ModelFailed          model_error        yes    the provider's own fault (5xx, an error event)
    ├── ModelDenied          model_denied       no     no key, or a key that may not
    ├── ContextTooLong       context_too_long   no
    └── BadModelRequest      model_bad_request  no     also a model that does not exist
    """

    code: ClassVar[str] = "model_error"
    retryable: ClassVar[bool] = False

    def __init__(self, text: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.retry_after_s = retry_after_s


class ModelRateLimited(ModelError):
    code = "rate_limited"
    retryable = True


class ModelOverloaded(ModelError):
    code = "overloaded"
    retryable = True


class ModelUnreachable(ModelError):
    code = "model_unreachable"
    retryable = True


class ModelStalled(ModelError):
    code = "model_stalled"
    retryable = True


class ModelFailed(ModelError):
    code = "model_error"
    retryable = True


class ModelDenied(ModelError):
    code = "model_denied"


class ContextTooLong(ModelError):
    code = "context_too_long"


class BadModelRequest(ModelError):
    code = "model_bad_request"
