"""What every part is given, and the servers that the parts compare."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from msgspec import Struct
from processes import Server, serving

BY_HAND: Final = "servers/by_hand.py"
OURS: Final = "servers/ours.py"
_NUMBERS: Final = count()


class Variant(Struct, frozen=True):
    """A server. `{db}` in its arguments is a file of its own."""

    label: str
    program: str
    arguments: tuple[str, ...]

    @property
    def short(self) -> str:
        """Which of ours, for the table of aims."""
        return self.label.removeprefix("Midstream, ").removesuffix(", coalescing off")

    @property
    def by_hand(self) -> bool:
        return self.program == BY_HAND


VARIANTS: Final = {
    "raw": Variant("raw loop, frames encoded beforehand", BY_HAND, ("raw",)),
    "msgspec": Variant("written by hand, msgspec", BY_HAND, ("msgspec",)),
    "json": Variant("written by hand, json", BY_HAND, ("json",)),
    "memory": Variant("Midstream, memory", OURS, ("memory:",)),
    "memory-off": Variant("Midstream, memory, coalescing off", OURS, ("memory:", "coalesce_ms=0")),
    "sqlite": Variant("Midstream, SQLite NORMAL", OURS, ("sqlite:///{db}",)),
    "sqlite-off": Variant("Midstream, SQLite NORMAL, coalescing off", OURS, ("sqlite:///{db}", "coalesce_ms=0")),
    "full-off": Variant(
        "Midstream, SQLite FULL, coalescing off", OURS, ("sqlite:///{db}", "coalesce_ms=0", "sqlite_synchronous=full")
    ),
    "full": Variant("Midstream, SQLite FULL", OURS, ("sqlite:///{db}", "sqlite_synchronous=full")),
    "plain": Variant("Midstream on plain ASGI, memory", OURS, ("memory:", "plain=1")),
    "plain-off": Variant(
        "Midstream on plain ASGI, memory, coalescing off", OURS, ("memory:", "coalesce_ms=0", "plain=1")
    ),
}


class Plan:
    """How much is measured. `rounds`: how often, each time with servers started anew; `quick`: small and soon over."""

    def __init__(self, *, rounds: int, quick: bool, folder: Path) -> None:
        self.rounds: Final = rounds
        self.quick: Final = quick
        self.folder: Final = folder
        self._begun = time.monotonic()

    def say(self, text: str) -> None:
        took = int(time.monotonic() - self._begun)
        print(f"[{took // 60}:{took % 60:02d}] {text}", file=sys.stderr, flush=True)

    def file(self) -> str:
        """The path of a new file."""
        return str(self.folder / f"{next(_NUMBERS)}.db")

    @contextmanager
    def running(self, variant: str, *changes: str, path: str | None = None, abrupt: bool = False) -> Iterator[Server]:
        """The server, with settings of its own (`name=value`). `path`: its file, if it is to be that one."""
        chosen = VARIANTS[variant]
        path = path or self.file()
        arguments = [each.replace("{db}", path) for each in chosen.arguments]
        with serving(chosen.program, *arguments, *changes, abrupt=abrupt) as server:
            yield server
