"""What a run may know and change outside of itself: the runs of its thread before it, the run it resumes, the grants of
its principal, the thread's title.
"""

from collections.abc import Collection

from midstream.log import JournalRecord, Log
from midstream.runs.contract import StartRecord
from midstream.runs.grants import Grants, Leave
from midstream.runs.keys import namespace
from midstream.runs.threads import Thread, Threads, titled
from midstream_protocol.errors import Busy


class Beyond:
    """One run's. `keep`: how many runs a conversation is made of at most. Raises `LogError`."""

    __slots__ = (
        "_grants",
        "_keep",
        "_log",
        "_space",
        "_start",
        "_threads",
    )

    def __init__(self, start: StartRecord, *, log: Log, threads: Threads, grants: Grants, keep: int) -> None:
        self._grants = grants
        self._start = start
        self._log = log
        self._threads = threads
        self._keep = keep
        self._space = namespace(start.principal.id)

    async def history(self) -> list[list[JournalRecord]]:
        """The journals of the thread's runs before this one, oldest first."""
        runs = self._start.previous[-self._keep :] if self._keep else ()
        found = [await self._journal(run_id) for run_id in runs]
        return [journal for journal in found if journal is not None]

    async def written(self) -> list[JournalRecord]:
        """The run's own journal, as it is by now."""
        return await self._journal(self._start.run_id) or []

    async def resumed(self) -> list[JournalRecord] | None:
        """The journal of the run that this one goes on with."""
        return None if self._start.resume is None else await self._journal(self._start.resume)

    async def leave_for(self, tool: str, scopes: Collection[str]) -> Leave | None:
        """The grant of one of these scopes by which this tool needs no approval now."""
        start = self._start
        return await self._grants.find(
            self._space, agent=start.agent, tool=tool, thread_id=start.thread_id, scopes=scopes
        )

    async def claim_title(self, text: str) -> bool:
        """Give the thread its title if no other run has; a run that asks again says what it meant."""
        claimed: list[bool] = []

        def change(thread: Thread) -> Thread:
            after, ours = titled(thread, self._start.run_id, text)
            claimed[:] = [ours]
            return after

        try:
            await self._threads.update(self._space, self._start.thread_id, change)
        except Busy:
            # Everybody wants this thread at once. A run can do without the honour.
            return False
        return claimed[0]

    async def _journal(self, run_id: str) -> list[JournalRecord] | None:
        loaded = await self._log.load(f"{self._space}.{run_id}")
        return None if loaded is None else list(loaded.journal)
