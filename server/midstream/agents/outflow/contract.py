"""What an app adds to the way out: functions in three phases that every drafted event passes before it is written.

transform (pure) → enrich (I/O: cached, bounded in time, with a fallback) → process (per user). What the run itself
writes (receipts' effects, endings) carries constants and clients' own words, and does not pass here.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct
from msgspec.structs import force_setattr

from midstream.agents.declared import BadDeclaration, check_function, check_kind, check_number, listed
from midstream.runs.contract import Principal
from midstream_protocol.events import Payload


class Audience(Struct, kw_only=True, frozen=True):
    """Whose run it is: a log has one audience."""

    run_id: str
    thread_id: str
    agent: str
    principal: Principal


Transform = Callable[[Payload], Payload | None]
"""Pure and quick. None: not shown; only for what is merely shown (deltas, progress, status, notices)."""


class ToolInfo(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What a catalogue knows of a tool, for people. Absent: as the tool declares it."""

    label: str | None = None
    description: str | None = None
    icon: str | None = None


Enrich = Callable[[str], Awaitable[ToolInfo | None]]
"""A catalogue: a tool's name → what to say of it. Its answers are kept for a while; a late or failing one is done
without."""

Process = Callable[[Payload, Audience], Payload | None]
"""For this user: the payload, another of the same type and ids, or None, as in `Transform`."""


class Outflow(Struct, kw_only=True, frozen=True):
    """An app's own functions, each phase in order: `Midstream(agents, outflow=Outflow(process=[hide_prices]))`.

    `secrets` are texts that never leave, wherever they stand. `guess`: what looks like a key or a password is hidden
    too; False for an app that hands out keys. `hidden_tools` says which tools this user sees only as “a step”, without
    name, arguments or result.

    A function that raises, or returns what is no payload, costs that text and not the run: the event is shown without
    its texts, or not at all if it is merely shown. A fact for which it returns None is shown without its texts. Only
    texts and values for people may change; what else it changed of an event is put back, and the log says so. What a
    message's deltas showed is what its `message.completed` says. A run's result that is a text passes as one
    `message.delta`; of another one, `secrets` are hidden. Raises ValueError.
    """

    transform: tuple[Transform, ...] = ()
    enrich: tuple[Enrich, ...] = ()
    process: tuple[Process, ...] = ()
    secrets: tuple[str, ...] = ()
    guess: bool = True
    hidden_tools: Callable[[Audience], frozenset[str]] | None = None
    enrich_timeout_s: float = 0.5
    enrich_keep_s: float = 300.0

    def __post_init__(self) -> None:
        for name, takes in _PHASES.items():
            functions = listed("outflow", name, getattr(self, name))
            force_setattr(self, name, functions)
            for function in functions:
                check_function("outflow", name, function, takes, plain=name != "enrich")
        # What was given may itself be the secret, so no sentence quotes it.
        if isinstance(self.secrets, str):
            raise BadDeclaration("outflow: secrets is one text; give a list, such as secrets=[…]")
        force_setattr(self, "secrets", listed("outflow", "secrets", self.secrets))
        for place, secret in enumerate(self.secrets):
            if not isinstance(secret, str):
                raise BadDeclaration(f"outflow: secrets[{place}] is of type {type(secret).__name__}; give texts")
        check_kind("outflow", "guess", self.guess, bool, "True or False")
        if self.hidden_tools is not None:
            check_function("outflow", "hidden_tools", self.hidden_tools, "audience", plain=True)
        check_number("outflow", "enrich_timeout_s", self.enrich_timeout_s)
        check_number("outflow", "enrich_keep_s", self.enrich_keep_s, least=0)


_PHASES: Final = {"transform": "payload", "enrich": "tool_name", "process": "payload, audience"}
"""What a function of each phase is called with."""
