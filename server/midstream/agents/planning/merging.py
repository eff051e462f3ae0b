"""From a proposal to the plan: what is wrong with it in words, or the whole plan with what is done already kept. Pure.

The first plan is the same with nothing done before.
"""

from collections.abc import Collection, Iterable, Sequence

import msgspec
from msgspec import Struct

from midstream.agents.planning.contract import ProposedTodo
from midstream.agents.planning.plan import OVER, Plan
from midstream.agents.planning.proposal import BadPlan, quoted
from midstream_protocol.events import Todo
from midstream_protocol.ids import is_id

NOTHING = Plan(todos=())


class Team(Struct, kw_only=True, frozen=True):
    """Who can be given a todo, and how many. `usual` does those that name nobody."""

    names: tuple[str, ...]
    usual: str
    max_todos: int
    max_title_chars: int

    def known(self, said: str | None) -> str | None:
        """The name that is meant, in upper or lower case; None: nobody's."""
        return next((name for name in (*self.names, self.usual) if name.casefold() == (said or "").casefold()), None)


def merged(proposal: Sequence[ProposedTodo], *, team: Team, before: Plan = NOTHING, used: Collection[str] = ()) -> Plan:
    """The plan after a proposal for all that remains. Raises `BadPlan`.

    What is over in `before` stays as it is. A proposed todo that is one of `before` (by id, or by title) is that one;
    one that was running and is not proposed again is skipped, one that had not begun is gone. An id stands for one
    piece of work for ever: none of `before` or `used` is given to other work.
    """
    return _Merging(proposal, team, before, used).plan()


class _Slot:
    """One todo that remains: of `before` (`known`), proposed, or both."""

    def __init__(self, proposed: ProposedTodo | None, known: Todo | None, number: int) -> None:
        self.proposed = proposed
        self.known = known
        self.number = number
        self.id = known.id if known is not None else ""

    @property
    def where(self) -> str:
        name = self.proposed.id if self.proposed is not None else None
        return f"Todo {self.number}" + (f" ({quoted(name)})" if name else "")


class _Merging:
    def __init__(self, proposal: Sequence[ProposedTodo], team: Team, before: Plan, used: Collection[str]) -> None:
        self._proposal = proposal
        self._team = team
        self._before = {todo.id: todo for todo in before.todos}
        self._taken = {*self._before, *used}
        self._problems: list[str] = []
        self._names: dict[str, str] = {}
        self._ambiguous: set[str] = set()

    def plan(self) -> Plan:
        if not self._proposal:
            raise BadPlan(["There are no todos. Give at least one."])
        slots = self._slots()
        self._name(slots)
        slots = [*self._referred_to(slots), *slots]
        self._check(slots)
        if self._problems:
            raise BadPlan(self._problems)
        done = self._over(slots)
        rest = self._linked(slots, done)
        if (cycle := _cycle(rest)) is not None:
            raise BadPlan([f"Todos wait for each other: {' → '.join(quoted(each) for each in cycle)}."])
        if not rest and not any(todo.status == "completed" for todo in done):
            raise BadPlan(["Nothing has been done, and nothing would be left to do. Give at least one todo."])
        return Plan(todos=(*done, *rest))

    # -- which is which

    def _slots(self) -> list[_Slot]:
        """What remains of the proposal, each with the todo that it is. One that is over already is not done again."""
        matched: set[str] = set()
        slots = []
        for number, proposed in enumerate(self._proposal, start=1):
            known = self._same(proposed, matched)
            if known is not None:
                matched.add(known.id)
                if known.status in OVER:
                    self._refer(proposed.id, known.id)
                    continue
            slots.append(_Slot(proposed, known, number))
        return slots

    def _same(self, proposed: ProposedTodo, matched: set[str]) -> Todo | None:
        """The todo of before that this is."""
        named = self._before.get(proposed.id or "")
        if named is not None and named.id not in matched and (named.status == "pending" or _alike(proposed, named)):
            return named
        for todo in self._before.values():
            if (
                todo.id not in matched
                and todo.status in ("completed", "in_progress", "pending")
                and _alike(proposed, todo)
            ):
                return todo
        return None

    def _name(self, slots: list[_Slot]) -> None:
        """Give every slot its id, and know it by the name that the planner gave it."""
        wanted = {each.proposed.id for each in slots if each.proposed is not None and each.proposed.id}
        for slot in slots:
            assert slot.proposed is not None
            name = slot.proposed.id
            if slot.known is None:
                free = is_id(name) and name not in self._taken
                slot.id = name if free and name is not None else self._fresh(slot.number, wanted)
                self._taken.add(slot.id)
            self._refer(name, slot.id)
        for slot in slots:
            self._names.setdefault(slot.id, slot.id)

    def _refer(self, name: str | None, todo_id: str) -> None:
        if name is not None and self._names.setdefault(name, todo_id) != todo_id:
            self._ambiguous.add(name)

    def _fresh(self, number: int, wanted: Collection[str | None]) -> str:
        while (todo_id := f"todo_{number}") in self._taken or todo_id in wanted:
            number += 1
        return todo_id

    def _referred_to(self, slots: list[_Slot]) -> list[_Slot]:
        """Todos that remain because something proposed depends on them, although they were not proposed again."""
        there = {slot.id for slot in slots}
        wanted = [self._names.get(name, name) for slot in slots for name in _depends_on(slot)]
        found: set[str] = set()
        while wanted:
            todo = self._before.get(wanted.pop())
            if todo is not None and todo.status not in OVER and todo.id not in there | found:
                found.add(todo.id)
                wanted += todo.depends_on or ()
        return [_Slot(None, todo, 0) for todo in self._before.values() if todo.id in found]

    # -- what is wrong

    def _check(self, slots: list[_Slot]) -> None:
        team = self._team
        if len(slots) > team.max_todos:
            self._problems.append(f"There are {len(slots):,} todos and at most {team.max_todos} are taken. Join steps.")
            return
        ids = {slot.id for slot in slots} | {todo.id for todo in self._before.values() if todo.status in OVER}
        for slot in slots:
            proposed = slot.proposed
            if proposed is None:
                continue
            if not proposed.title.strip():
                self._problems.append(f"{slot.where} has no `title`. Say in a few words what is to be done.")
            if len(proposed.title) > team.max_title_chars:
                self._problems.append(
                    f"{slot.where}: its title has {len(proposed.title):,} characters, at most {team.max_title_chars} "
                    "are taken."
                )
            if proposed.agent is not None and team.known(proposed.agent) is None:
                known = ", ".join(team.names)
                self._problems.append(
                    f"{slot.where}: there is no agent {quoted(proposed.agent)}. Name one of: {known}."
                )
            for name in proposed.depends_on or ():
                self._check_need(slot, name, ids)

    def _check_need(self, slot: _Slot, name: str, ids: set[str]) -> None:
        needed = self._names.get(name, name)
        if name in self._ambiguous:
            self._problems.append(f"{slot.where} depends on {quoted(name)}, and several todos have this id.")
        elif needed == slot.id:
            self._problems.append(f"{slot.where} depends on itself.")
        elif needed not in ids:
            self._problems.append(f"{slot.where} depends on {quoted(name)}, and no todo has this id.")

    # -- the plan

    def _over(self, slots: list[_Slot]) -> list[Todo]:
        """What is over, with what is dropped in the middle of its work."""
        rest = {slot.id for slot in slots}
        done = []
        for todo in self._before.values():
            if todo.status in OVER:
                done.append(todo)
            elif todo.status == "in_progress" and todo.id not in rest:
                done.append(msgspec.structs.replace(todo, status="skipped"))
        there = {todo.id for todo in done}
        return [_needing(todo, (need for need in todo.depends_on or () if need in there | rest)) for todo in done]

    def _linked(self, slots: list[_Slot], done: list[Todo]) -> list[Todo]:
        """What remains, with every dependency said. Where the proposal gave none, each follows the one before."""
        chained = all(proposed.depends_on is None for proposed in self._proposal)
        before = next((todo.id for todo in reversed(done) if todo.status == "completed"), None)
        ids = {slot.id for slot in slots} | {todo.id for todo in done}
        earlier = {todo.id for todo in done}
        rest = []
        for slot in slots:
            proposed, known = slot.proposed, slot.known
            if proposed is None or (known is not None and known.status == "in_progress"):
                assert known is not None
                todo = _needing(known, (need for need in known.depends_on or () if need in ids))
            else:
                needs = [self._names.get(name, name) for name in proposed.depends_on or ()]
                if proposed.depends_on is None and known is not None:
                    kept = earlier if chained else ids
                    needs = [need for need in known.depends_on or () if need in kept]
                if chained and before is not None:
                    needs.append(before)
                agent = self._team.known(proposed.agent) or (known.agent if known is not None else self._team.usual)
                todo = Todo(
                    id=slot.id,
                    title=proposed.title,
                    agent=agent,
                    status="pending",
                    depends_on=list(dict.fromkeys(needs)),
                )
            rest.append(todo)
            before = todo.id
            earlier.add(todo.id)
        return rest


def _depends_on(slot: _Slot) -> Sequence[str]:
    return slot.proposed.depends_on or () if slot.proposed is not None else ()


def _needing(todo: Todo, needs: Iterable[str]) -> Todo:
    return msgspec.structs.replace(todo, depends_on=list(needs))


def _alike(proposed: ProposedTodo, todo: Todo) -> bool:
    """Whether this is the same work. Running work that another agent is to do is other work."""
    if todo.status == "in_progress" and proposed.agent not in (None, todo.agent):
        return False
    return _words(proposed.title) == _words(todo.title)


def _words(title: str) -> str:
    return " ".join(title.casefold().split()).rstrip(".!:… ")


def _cycle(todos: Sequence[Todo]) -> list[str] | None:
    """Ids of todos that wait for each other, from one back to itself."""
    needs = {todo.id: set(todo.depends_on or ()) for todo in todos}
    while True:
        free = {todo_id for todo_id, needed in needs.items() if not needed & needs.keys()}
        if not free:
            break
        needs = {todo_id: needed for todo_id, needed in needs.items() if todo_id not in free}
    if not needs:
        return None
    path = [next(iter(needs))]
    while path[-1] not in path[:-1]:
        path.append(min(needs[path[-1]] & needs.keys()))
    return path[path.index(path[-1]) :]
