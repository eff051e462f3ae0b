"""How far planning is, as the journal has it. Pure: folds of records."""

from collections.abc import Collection, Iterable

import msgspec

from midstream.agents.planning.contract import Correction
from midstream.agents.planning.plan import Plan
from midstream.agents.records import GuardRecord, PlanRecord, TitleRecord
from midstream.log import JournalRecord
from midstream.runs.contract import CorrectionRecord


class Progress:
    """What of planning one run has. `plan` is the newest record; None: there is none."""

    def __init__(self, journal: Iterable[JournalRecord]) -> None:
        self.plan: PlanRecord | None = None
        self.title: TitleRecord | None = None
        self.guards: dict[str, GuardRecord] = {}
        self.used: set[str] = set()
        """Every todo id that a plan of this run has had."""
        self.plans = 0
        for record in journal:
            match record.kind:
                case "plan":
                    self.plan = msgspec.json.decode(record.data, type=PlanRecord)
                    self.used |= {todo.id for todo in self.plan.todos}
                    self.plans += 1
                case "title":
                    self.title = msgspec.json.decode(record.data, type=TitleRecord)
                case "guardrail":
                    self.guards[record.key] = msgspec.json.decode(record.data, type=GuardRecord)
                case _:
                    pass


def unrevised(journal: Iterable[JournalRecord]) -> list[Correction]:
    """Corrections that were taken to make the plan anew and for which that has not been done: a crash came between."""
    owed: dict[str, Correction] = {}
    for record in journal:
        if record.kind == "correction":
            taken = msgspec.json.decode(record.data, type=CorrectionRecord)
            if taken.replanned:
                owed[record.key] = Correction(correction_id=record.key, text=taken.text, replanned=True)
        elif record.kind == "plan":
            for correction_id in msgspec.json.decode(record.data, type=PlanRecord).corrections:
                owed.pop(correction_id, None)
    return list(owed.values())


def reopened(journal: Iterable[JournalRecord], *, agents: Collection[str]) -> Plan | None:
    """The plan of a run that failed, for the one that goes on from it: what was completed stays so, the rest is to be
    done. None: it had no plan, or one for agents that are not there any more.
    """
    plan: tuple[PlanRecord, ...] = ()
    dropped: set[str] = set()
    for record in journal:
        if record.kind == "plan":
            newest = msgspec.json.decode(record.data, type=PlanRecord)
            if newest.corrections and plan:
                dropped |= _skipped(newest) - _skipped(plan[0])
            plan = (newest,)
    if not plan:
        return None
    todos = [
        todo if todo.status == "completed" or todo.id in dropped else msgspec.structs.replace(todo, status="pending")
        for todo in plan[0].todos
    ]
    if any(todo.status == "pending" and todo.agent not in agents for todo in todos):
        return None
    return Plan(todos=tuple(todos))


def _skipped(plan: PlanRecord) -> set[str]:
    return {todo.id for todo in plan.todos if todo.status == "skipped"}
