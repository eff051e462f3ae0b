"""The one place where a run's corrections are taken, and from where every stage hears them.

A correction is applied once, at the stage that took it. It is then on the board: every running stage hears it at its
own next safe point, and later ones have it in their brief.
"""

import asyncio
from collections.abc import Container, Iterable, Sequence

import msgspec

from midstream.agents.planning.contract import Correction, Orchestrates
from midstream.agents.planning.progress import unrevised
from midstream.agents.records import StageRecord, TurnRecord
from midstream.agents.tools.settle import settled
from midstream.log import JournalRecord
from midstream.runs.contract import CorrectionRecord
from midstream.runs.port import Port


class Board:
    """For one run. `owed` are corrections for which the plan is still to be made anew; `news` is set when one comes."""

    def __init__(self, *, port: Port, orchestrator: Orchestrates, journal: Sequence[JournalRecord]) -> None:
        self._port = port
        self._orchestrator = orchestrator
        self._corrections = _taken(journal)
        self._heard = _heard(journal)
        self._working: set[str] = set()
        self._lock = asyncio.Lock()
        self._owed = unrevised(journal)
        self.news = asyncio.Event()

    # -- for stages

    async def hear(self, *, stage: str, step_id: str, known: Container[str], ending: bool = False) -> list[Correction]:
        """Take what is due, and say what is on the board and not in `known`, in order.

        `ending`: this stage has no more to do. If nothing else has, those that wait for idleness are due too. Raises
        `Stopping`.
        """
        await self.take(step_id=step_id, ending=ending and self._is_alone(stage))
        new = [correction for correction in self._corrections if correction.correction_id not in known]
        self.told(correction.correction_id for correction in new)
        return new

    async def take(self, *, step_id: str, ending: bool) -> None:
        """Take what is due here. Raises `Stopping`."""
        self._port.check()
        async with self._lock:
            if self._port.due_corrections(ending=ending):
                # Whoever takes it may be stopped for it: what is applied must be on the board all the same.
                await settled(self._take(step_id, ending=ending), name=f"run:{self._port.start.run_id}/corrections")

    async def _take(self, step_id: str, *, ending: bool) -> None:
        due = self._port.due_corrections(ending=ending)
        replan = frozenset(each.correction_id for each in due if self._replans(each.text, asked=each.asked_replan))
        only = frozenset(each.correction_id for each in due)
        for each in await self._port.corrections(step_id=step_id, ending=ending, only=only, replan=replan):
            replanned = each.correction_id in replan
            correction = Correction(correction_id=each.correction_id, text=each.text, replanned=replanned)
            self._corrections.append(correction)
            if replanned:
                self._owed.append(correction)
                self.news.set()

    def _replans(self, text: str, *, asked: bool) -> bool:
        return self._orchestrator.plan is not None and self._orchestrator.replans(text, asked=asked)

    # -- for the pipeline

    def enter(self, stage: str) -> None:
        """A stage works, so the run does not end with another one's end."""
        self._working.add(stage)

    def leave(self, stage: str) -> None:
        self._working.discard(stage)

    def told(self, correction_ids: Iterable[str]) -> None:
        """A stage has heard these."""
        self._heard.update(correction_ids)

    @property
    def corrections(self) -> tuple[Correction, ...]:
        """All that were taken, in order."""
        return tuple(self._corrections)

    @property
    def unheard(self) -> list[Correction]:
        """Those that were taken and that no stage has heard."""
        return [each for each in self._corrections if each.correction_id not in self._heard]

    @property
    def replan_due(self) -> bool:
        """Whether a correction waits that changes the plan, so that nothing is begun by the old one."""
        return any(self._replans(each.text, asked=each.asked_replan) for each in self._port.due_corrections())

    @property
    def owes(self) -> bool:
        """Whether the plan is to be made anew."""
        return bool(self._owed)

    def take_owed(self) -> list[Correction]:
        """The corrections for which the plan is to be made anew now."""
        owed, self._owed = self._owed, []
        return owed

    def _is_alone(self, stage: str) -> bool:
        plan = self._orchestrator.plan
        remains = plan is not None and plan.of_status("pending")
        return not remains and not self._owed and not self._working - {stage}


def _taken(journal: Sequence[JournalRecord]) -> list[Correction]:
    taken: dict[str, Correction] = {}
    for record in journal:
        if record.kind == "correction":
            kept = msgspec.json.decode(record.data, type=CorrectionRecord)
            taken[record.key] = Correction(correction_id=record.key, text=kept.text, replanned=kept.replanned)
    return list(taken.values())


def _heard(journal: Sequence[JournalRecord]) -> set[str]:
    """What a stage has answered, or was told in its brief."""
    heard: set[str] = set()
    for record in journal:
        if record.kind == "turn":
            heard.update(msgspec.json.decode(record.data, type=TurnRecord).heard)
        elif record.kind == "stage":
            heard.update(msgspec.json.decode(record.data, type=StageRecord).heard)
    return heard
