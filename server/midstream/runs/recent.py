"""Which run a principal's command went to, for the commands that came last: one id means one command, so the same id
for another run is a mistake. A run's own receipts are durable; this is the check across runs, in memory and bounded.
"""

from collections import OrderedDict
from typing import Final

from midstream_protocol.errors import Conflict

KEEP: Final = 50_000
"""Commands remembered, about 10 MB: far more than clients have under way."""


class RecentCommands:
    def __init__(self, *, keep: int = KEEP) -> None:
        self._keep = keep
        self._runs: OrderedDict[tuple[str, str], str] = OrderedDict()

    def note(self, principal_id: str, command_id: str, run: str) -> None:
        """This command is for `run`. Raises `Conflict` if it was for another."""
        key = (principal_id, command_id)
        if self._runs.setdefault(key, run) != run:
            raise Conflict("this command_id was used for another run: make a new id for each command")
        self._runs.move_to_end(key)
        if len(self._runs) > self._keep:
            self._runs.popitem(last=False)

    def forget(self, principal_id: str, command_id: str) -> None:
        """The command had no effect where it went, and goes elsewhere."""
        self._runs.pop((principal_id, command_id), None)
