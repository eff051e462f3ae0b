"""How far the readers of runs have come, in a file: a program that is started again goes on where it was."""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from midstream.clock import Clock
from midstream.logs import Logger

MAX_CURSORS: Final = 1000
"""Runs remembered; of more, the ones that nobody has read for longest are forgotten."""
WRITE_AFTER_S: Final = 1.0
"""A file is not written for every event. What was read within the last second before a crash is read again."""

_log = Logger("midstream.client")


class Cursors:
    """`{run_id: [epoch, seq]}` as JSON, replaced as a whole. A file that cannot be read counts as an empty one.

    One program at a time: two would overwrite each other.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock) -> None:
        self._path = Path(path)
        self._clock = clock
        self._cancel: Callable[[], None] | None = None
        self._places = _read(self._path)

    def get(self, run_id: str) -> tuple[str, int] | None:
        return self._places.get(run_id)

    def put(self, run_id: str, *, epoch: str, seq: int) -> None:
        if self._places.get(run_id) == (epoch, seq):
            return
        # Taken out first, so that the order is the one in which runs were read last.
        self._places.pop(run_id, None)
        self._places[run_id] = (epoch, seq)
        while len(self._places) > MAX_CURSORS:
            del self._places[next(iter(self._places))]
        if self._cancel is None:
            self._cancel = self._clock.call_later(WRITE_AFTER_S, self._due)

    def _due(self) -> None:
        try:
            self.write()
        except OSError as error:
            # A full disk must not end a run's following; leaving the client tries again, and says it.
            _log.warning("the cursors could not be written", path=str(self._path), error=str(error))

    def write(self) -> None:
        """Now, if there is anything to write. Raises OSError."""
        if self._cancel is None:
            return
        self._cancel()
        self._cancel = None
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(self._places, file)
            Path(name).replace(self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise


def _read(path: Path) -> dict[str, tuple[str, int]]:
    try:
        said: Any = json.loads(path.read_bytes())
        return {
            str(run_id): (str(epoch), seq) for run_id, (epoch, seq) in said.items() if isinstance(seq, int) and seq >= 0
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
