"""What an app adds to the way out: functions in three phases that every drafted event passes before it is written.

transform (pure) → enrich (I/O: cached, bounded in time, with a fallback) → process (per user). What the run itself
writes (receipts' effects, endings) carries constants and clients' own words, and does not pass here.
"""

from collections.abc import Awaitable, Callable

from msgspec import Struct

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

    `secrets` are texts that never leave, wherever they stand. `hidden_tools` says which tools this user sees only as
    “a step”, without name, arguments or result.
    """

    transform: tuple[Transform, ...] = ()
    enrich: tuple[Enrich, ...] = ()
    process: tuple[Process, ...] = ()
    secrets: tuple[str, ...] = ()
    hidden_tools: Callable[[Audience], frozenset[str]] | None = None
    enrich_timeout_s: float = 0.5
    enrich_keep_s: float = 300.0
