"""A tool as an app declares it: `@tool` for what runs here, `@client_tool` for what the user's program runs."""

import inspect
import re
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, Literal, overload

from msgspec import Struct

from midstream.agents.outflow.secrets import scrubbed
from midstream.agents.tools.shown import Hide, fill_label, redacted
from midstream.agents.tools.signature import BadTool, read_signature
from midstream.runs.grants import SCOPES, Scope
from midstream_protocol.events import Risk
from midstream_protocol.ids import is_id

OnUnknown = Literal["tell", "retry", "ask"]
OnExpire = Literal["deny", "fail"]

DEFAULT_TIMEOUT_S: Final = 60.0
DEFAULT_APPROVAL_S: Final = 3_600.0
"""How long an approval waits for a person: long enough for lunch."""

_TEMPLATE: Final = re.compile(r"\{(\w+)\}")


class AskWhen(Struct, kw_only=True, frozen=True, eq=False):
    """Ask when `when(arguments)` is true; when it raises, ask too."""

    when: Callable[[Any], bool]
    risk: Risk | None = None
    reason: str | None = None


def ask_when(when: Callable[[Any], bool], *, risk: Risk | None = None, reason: str | None = None) -> AskWhen:
    """An approval for some arguments only: `ask_when(lambda a: a.amount > 50, risk="high")`.

    `reason` is shown to the one who decides; without it they see `policy`.
    """
    return AskWhen(when=when, risk=risk, reason=reason)


Approval = Literal["never", "always"] | AskWhen


class Preview(Struct, kw_only=True, frozen=True):
    """What an approval shows instead of raw arguments: `kind` `diff` or `text` with a text, or another with any JSON.

    `guard` names the state of the world it was made from (a file's hash): when it has changed before the effect, the
    person is asked anew.
    """

    kind: str
    data: Any
    guard: str | None = None


PreviewMaker = Callable[[Any], Preview | Awaitable[Preview]]


class Tool(Struct, kw_only=True, frozen=True, eq=False):
    """One tool. Made by `tool` and `client_tool`; calling it calls the function, as a test wants to.

    `arguments` is the type the model's arguments become, `input_schema` what the model is told. `client`: it runs in
    the client that offers it, and the function is never called.
    """

    name: str
    description: str
    fn: Callable[..., Any]
    arguments: type[Struct]
    input_schema: dict[str, Any]
    injected: dict[str, type]
    context: tuple[str, ...]
    label: tuple[str, ...]
    client: bool
    threaded: bool
    approval: Approval
    on_unknown: OnUnknown
    idempotent: bool
    timeout_s: float
    preview: PreviewMaker | None
    redact: frozenset[str]
    expires_s: float
    on_expire: OnExpire
    risk: Risk
    remember: tuple[Scope, ...] | None
    """How far a grant for it may reach; None: by its risk."""
    editable: bool

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)

    def shown_args(self, args: dict[str, Any]) -> dict[str, Any]:
        """The arguments as whoever approves them sees them: without `redact`, and what a name calls secret."""
        return dict(redacted(args, self.redact))

    @property
    def title(self) -> str:
        """For people, while the arguments are not known."""
        return titled(self.name)

    def label_for(self, args: dict[str, Any], *, hide: Hide = scrubbed) -> str:
        return fill_label(self.label, hide(self.shown_args(args)))


@overload
def tool(fn: Callable[..., Any], /) -> Tool: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    approval: Approval = "never",
    on_unknown: OnUnknown | None = None,
    idempotent: bool = False,
    label: str | None = None,
    timeout: float = DEFAULT_TIMEOUT_S,
    preview: PreviewMaker | None = None,
    redact: Collection[str] = (),
    expires_s: float = DEFAULT_APPROVAL_S,
    on_expire: OnExpire = "deny",
    risk: Risk = "medium",
    remember: Collection[Scope] | None = None,
    editable: bool = True,
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(fn: Callable[..., Any] | None = None, /, **options: Any) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Declare a function as a tool. Its signature is what the model is told; its docstring describes it.

    An `async` function is cancelled when the run is; a plain one runs in a thread, which cannot be: it then goes on,
    and its outcome is called unknown.

    - `approval`: `never`, `always`, or `ask_when(…)`.
    - `on_unknown`: what to do with a call that was under way when the server died. `tell` the model (the default),
      `ask` a person, or `retry` it. `idempotent=True` promises that running it again changes nothing, and means
      `retry`; such a tool should pass on `ToolContext.idempotency_key`.
    - `label`: for people, with arguments: `"Refund {amount} on order {order_id}"`.
    - `timeout`: seconds; there is always one.
    - `preview(arguments) -> Preview`: what an approval shows, and a guard. It must change nothing.
    - `redact`: names of arguments (and result fields) that no client may see. Names that mean a secret (`password`,
      `api_key`, …) need not be said.
    - `expires_s`, `on_expire`: how long an approval waits, and whether nobody answering denies the call or fails the
      run. `risk`, `editable`: what the one who decides is told, and whether they may change arguments.
    - `remember`: for how long an approval may be given at once, of `run`, `thread` (every run of the thread) and
      `always` (every run of that person). All three by default, `run` alone where the risk is `high`.

    Raises `BadTool` for what cannot work.
    """
    if fn is not None:
        return _make(fn, client=False)
    return lambda function: _make(function, client=False, **options)


@overload
def client_tool(fn: Callable[..., Any], /) -> Tool: ...


@overload
def client_tool(
    *,
    name: str | None = None,
    description: str | None = None,
    approval: Approval = "never",
    label: str | None = None,
    timeout: float = DEFAULT_TIMEOUT_S,
    redact: Collection[str] = (),
    expires_s: float = DEFAULT_APPROVAL_S,
    on_expire: OnExpire = "deny",
    risk: Risk = "medium",
    remember: Collection[Scope] | None = None,
    editable: bool = True,
) -> Callable[[Callable[..., Any]], Tool]: ...


def client_tool(fn: Callable[..., Any] | None = None, /, **options: Any) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Declare a tool that a client runs (an editor's buffer, a browser's page). The function's body is never called.

    The model is told of it while a client offers to host it. `redact` hides arguments from approvals; the client that
    runs the call gets them whole, and its `tool.requested` is visible to who may see the run. Raises `BadTool`.
    """
    if unknown := options.keys() - _CLIENT_OPTIONS:
        raise BadTool(f"a client's tool has no {', '.join(sorted(unknown))}: the client decides that")
    if fn is not None:
        return _make(fn, client=True)
    return lambda function: _make(function, client=True, **options)


_CLIENT_OPTIONS: Final = frozenset(
    {
        *("name", "description", "approval", "label", "timeout", "redact"),
        *("expires_s", "on_expire", "risk", "remember", "editable"),
    }
)


def _make(
    fn: Callable[..., Any],
    *,
    client: bool,
    name: str | None = None,
    description: str | None = None,
    approval: Approval = "never",
    on_unknown: OnUnknown | None = None,
    idempotent: bool = False,
    label: str | None = None,
    timeout: float = DEFAULT_TIMEOUT_S,
    preview: PreviewMaker | None = None,
    redact: Collection[str] = (),
    expires_s: float = DEFAULT_APPROVAL_S,
    on_expire: OnExpire = "deny",
    risk: Risk = "medium",
    remember: Collection[Scope] | None = None,
    editable: bool = True,
) -> Tool:
    called = name if name is not None else getattr(fn, "__name__", "")
    if not is_id(called):
        raise BadTool(f"a tool cannot be called {called!r}: 1 to 64 letters, digits, `_` or `-`")
    if not (timeout > 0 and expires_s > 0):
        raise BadTool(f"tool {called}: timeout and expires_s are seconds, more than 0")
    if not isinstance(approval, AskWhen) and approval not in ("never", "always"):
        raise BadTool(f"tool {called}: approval is 'never', 'always' or ask_when(…), not {approval!r}")
    if idempotent and on_unknown not in (None, "retry"):
        raise BadTool(f"tool {called}: idempotent means on_unknown='retry'; it cannot be {on_unknown!r}")
    if on_unknown not in (None, "tell", "retry", "ask"):
        raise BadTool(f"tool {called}: on_unknown is 'tell', 'retry' or 'ask', not {on_unknown!r}")
    if remember is not None and (isinstance(remember, str) or not set(remember) <= set(SCOPES)):
        raise BadTool(f"tool {called}: remember is a list of {', '.join(SCOPES)}, not {remember!r}")
    signature = read_signature(fn, name=called, description=description)
    if client and (signature.injected or signature.context):
        raise BadTool(f"tool {called}: a client runs it, so it can have neither a context nor resources")
    hidden = frozenset((redact,) if isinstance(redact, str) else redact)
    return Tool(
        name=called,
        description=signature.description,
        fn=fn,
        arguments=signature.arguments,
        input_schema=signature.input_schema,
        injected=signature.injected,
        context=signature.context,
        label=_label(called, label, signature.input_schema["properties"]),
        client=client,
        threaded=not client and not inspect.iscoroutinefunction(fn),
        approval=approval,
        on_unknown="retry" if idempotent else on_unknown or "tell",
        idempotent=idempotent,
        timeout_s=timeout,
        preview=preview,
        redact=hidden,
        expires_s=expires_s,
        on_expire=on_expire,
        risk=risk,
        remember=None if remember is None else tuple(scope for scope in SCOPES if scope in remember),
        editable=editable,
    )


def titled(name: str) -> str:
    """A tool's name as a label."""
    return name.replace("_", " ").capitalize()


def _label(name: str, label: str | None, properties: Collection[str]) -> tuple[str, ...]:
    if label is None:
        return (titled(name),)
    parts = tuple(_TEMPLATE.split(label))
    if unknown := sorted(set(parts[1::2]) - set(properties)):
        raise BadTool(f"tool {name}: its label names {', '.join(unknown)}, which is no argument of it")
    return parts
