"""Grants that outlive their run: leave for one tool of one agent, given with an approval, for its thread or every run.

A grant is a record, written in the step that resolves its approval, and read again for each call that asks for leave:
one that is revoked holds for no further call, and a server that dies forgets none. Its id follows from what it is for,
so the same leave given again replaces the one before, and a thread's grants stand next to each other.
"""

import hashlib
from collections.abc import Collection
from contextlib import suppress
from typing import Final, Literal

import msgspec
from msgspec import Struct, field

from midstream.clock import Clock
from midstream.log import Record, Records, RecordWrite, VersionConflict
from midstream_protocol.codec import iso_ms, parse_iso
from midstream_protocol.errors import NotFound
from midstream_protocol.events import ApprovalRequired, Risk

Scope = Literal["run", "thread", "always"]

SCOPES: Final[tuple[Scope, ...]] = ("run", "thread", "always")
"""What a grant may be for, from the narrowest on."""

_PREFIX: Final[dict[Scope, str]] = {"thread": "grant_thread_", "always": "grant_always_"}
_PAGE: Final = 500


class GivenAt(Struct, kw_only=True, frozen=True):
    """The approval that a grant was given with. `label` is what was asked then. The run may be erased by now."""

    run_id: str
    approval_id: str
    label: str


class Grant(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Leave to run `tool` of `agent` unasked; as `GET /v1/grants` shows it. `expires_at` None: until it is revoked."""

    grant_id: str
    scope: Scope
    tool: str
    agent: str
    risk: Risk
    created_at: str
    by: str
    given_at: GivenAt = field(name="from")
    thread_id: str | None = None
    expires_at: str | None = None

    def holds(self, now_ms: int) -> bool:
        return self.expires_at is None or now_ms < parse_iso(self.expires_at)


class Leave(Struct, kw_only=True, frozen=True):
    """By which grant a call needs no approval."""

    grant_id: str
    scope: Scope


def run_grant_id(approval_id: str) -> str:
    """Of a grant for the rest of a run, which is in that run's log and nowhere else."""
    return f"grant_{_digest(approval_id, 24)}"


def outlives(grant_id: str) -> bool:
    """Whether a grant of that id is a record here, and not its run's."""
    return grant_id.startswith(tuple(_PREFIX.values()))


def standing_grant(
    space: str,
    required: ApprovalRequired,
    *,
    scope: Scope,
    agent: str,
    thread_id: str,
    run_id: str,
    by: str,
    now_ms: int,
    expires_in_s: float | None,
) -> tuple[str, RecordWrite]:
    """The id of a grant for a thread or for every run of a principal (`space`), and what is written of it. Pure."""
    thread = thread_id if scope == "thread" else None
    grant = Grant(
        grant_id=_grant_id(agent, required.tool, thread),
        scope=scope,
        tool=required.tool,
        agent=agent,
        risk=required.risk,
        created_at=iso_ms(now_ms),
        by=by,
        given_at=GivenAt(run_id=run_id, approval_id=required.approval_id, label=required.label),
        thread_id=thread,
        expires_at=None if expires_in_s is None else iso_ms(now_ms + round(expires_in_s * 1000)),
    )
    return grant.grant_id, RecordWrite(kind=_kind(space), id=grant.grant_id, data=msgspec.json.encode(grant))


class Grants:
    """The grants of every principal, each in its own namespace (`space`). Raises `LogError`."""

    def __init__(self, *, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock

    async def find(self, space: str, *, agent: str, tool: str, thread_id: str, scopes: Collection[str]) -> Leave | None:
        """What lets this tool run unasked now in that thread, of those scopes."""
        for scope, thread in (("thread", thread_id), ("always", None)):
            if scope not in scopes:
                continue
            record = await self._records.get(_kind(space), _grant_id(agent, tool, thread))
            if record is not None and (grant := _grant(record)).holds(self._clock.now_ms()):
                return Leave(grant_id=grant.grant_id, scope=grant.scope)
        return None

    async def page(self, space: str, *, after: str | None, limit: int) -> tuple[list[Grant], str | None]:
        """Those that hold now, newest first, and where the next page begins. A few at most: people give them one by
        one, so they are put in order here.
        """
        found: list[Grant] = []
        seen: str | None = None
        while page := await self._records.list(_kind(space), after=seen, limit=_PAGE):
            for record in page:
                seen, grant = record.id, _grant(record)
                if grant.holds(self._clock.now_ms()):
                    found.append(grant)
                else:
                    # Given again meanwhile, it is another version, and stays.
                    with suppress(VersionConflict):
                        await self._records.delete(_kind(space), record.id, expect_version=record.version)
            if len(page) < _PAGE:
                break
        found.sort(key=_place, reverse=True)
        rest = [grant for grant in found if after is None or _place(grant) < after]
        return rest[:limit], _place(rest[limit - 1]) if len(rest) > limit else None

    async def revoke(self, space: str, grant_id: str) -> None:
        """It holds for no call from here on. Raises `NotFound`."""
        if not outlives(grant_id) or not await self._records.delete(_kind(space), grant_id):
            raise NotFound("there is no such grant, or it is not yours")

    async def forget_thread(self, space: str, thread_id: str) -> None:
        """The thread is gone: another of that id begins without its grants."""
        prefix = _thread_prefix(thread_id)
        after = prefix
        while page := await self._records.list(_kind(space), after=after, limit=_PAGE):
            for record in page:
                if not record.id.startswith(prefix):
                    return
                await self._records.delete(_kind(space), record.id)
                after = record.id


def _grant_id(agent: str, tool: str, thread_id: str | None) -> str:
    prefix = _PREFIX["always"] if thread_id is None else _thread_prefix(thread_id)
    # No name has a zero in it, so no two pairs are the same text.
    return prefix + _digest(f"{agent}\0{tool}", 24)


def _thread_prefix(thread_id: str) -> str:
    return f"{_PREFIX['thread']}{_digest(thread_id, 16)}_"


def _digest(text: str, chars: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:chars]


def _kind(space: str) -> str:
    return f"grant.{space}"


def _grant(record: Record) -> Grant:
    return msgspec.json.decode(record.data, type=Grant)


def _place(grant: Grant) -> str:
    return f"{parse_iso(grant.created_at):013d}.{grant.grant_id}"
