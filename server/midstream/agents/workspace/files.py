"""Looking around in the folder: list, read, search. They change nothing and ask nobody."""

import time
from typing import Final

from midstream.agents.tools.context import ToolError
from midstream.agents.tools.definition import Tool, tool
from midstream.agents.workspace.folder import Folder, as_text, lines_of

MAX_ENTRIES: Final = 500
MAX_DEPTH: Final = 6
MAX_LINES: Final = 1_000
"""Lines of one reading: the rest is asked for with `first_line`."""
MAX_READ_CHARS: Final = 28_000
MAX_MATCHES: Final = 100
MAX_MATCH_CHARS: Final = 200
MAX_SEARCHED: Final = 20_000
"""Files looked into by one search."""
SEARCH_S: Final = 10.0
"""Seconds of one search: a thread cannot be stopped from outside, so it stops itself and tells what it has found."""

TIMEOUT_S: Final = 20.0


def looking_tools(folder: Folder) -> list[Tool]:
    """`list_files`, `read_file`, `search_text` over one folder."""

    @tool(idempotent=True, label="List files in {path}", timeout=TIMEOUT_S)
    def list_files(path: str = ".", depth: int = 2) -> str:
        """List files and folders. A folder's name ends with a slash.

        Args:
            path: A folder, relative to the workspace.
            depth: How many levels to go down, 1 to 6.
        """
        return _listed(folder, path, depth)

    @tool(idempotent=True, label="Read {path}", timeout=TIMEOUT_S)
    def read_file(path: str, first_line: int = 1, lines: int = MAX_LINES) -> str:
        """Read a text file.

        Args:
            path: The file, relative to the workspace.
            first_line: The first line to return, from 1.
            lines: How many lines to return at most.
        """
        return _read(folder, path, first_line, lines)

    @tool(idempotent=True, label="Search for {text}", timeout=TIMEOUT_S)
    def search_text(text: str, path: str = ".", ignore_case: bool = True) -> str:  # noqa: FBT001, FBT002 - the model's
        """Find lines that contain a text, in all files of a folder. It is plain text, not a pattern.

        Args:
            text: What to look for.
            path: The folder to look in, relative to the workspace.
            ignore_case: Whether upper and lower case are the same.
        """
        return _found(folder, text, path, ignore_case=ignore_case)

    return [list_files, read_file, search_text]


_MARKS: Final = {"folder": "/", "link": " (a link)"}


def _listed(folder: Folder, path: str, depth: int) -> str:
    lines: list[str] = []
    for place, kind in folder.walk(path, depth=max(1, min(depth, MAX_DEPTH))):
        if len(lines) == MAX_ENTRIES:
            lines.append(f"… there is more; only {MAX_ENTRIES} are shown: list a folder of it")
            break
        lines.append(f"{place.as_posix()}{_MARKS.get(kind, '')}")
    return "\n".join(lines) or "(empty)"


def _read(folder: Folder, path: str, first_line: int, count: int) -> str:
    whole = lines_of(as_text(folder.read(path), path))
    start = max(1, first_line) - 1
    if start >= len(whole) > 0:
        raise ToolError(f"{path} has {len(whole)} lines.")
    taken: list[str] = []
    room = MAX_READ_CHARS
    for line in whole[start : start + max(1, min(count, MAX_LINES))]:
        if len(line) > room and taken:
            break
        taken.append(line[:room])
        room -= len(line)
    end = start + len(taken)
    text = "".join(taken)
    if start == 0 and end == len(whole) and room >= 0:
        return text or "(empty file)"
    cut = "" if room >= 0 else ", a long line cut"
    return f"{text}\n[lines {start + 1} to {end} of {len(whole)}{cut}]"


def _found(folder: Folder, text: str, path: str, *, ignore_case: bool) -> str:
    if not text:
        raise ToolError("Say what to look for.")
    wanted = text.casefold() if ignore_case else text
    found: list[str] = []
    until = time.monotonic() + SEARCH_S
    for searched, (place, kind) in enumerate(folder.walk(path, depth=64)):
        if searched >= MAX_SEARCHED or time.monotonic() > until:
            found.append(f"… stopped after {searched:,} files: search in a folder of it")
            break
        if kind != "file":
            continue
        for number, line in _lines(folder, place.as_posix()):
            if wanted in (line.casefold() if ignore_case else line):
                found.append(f"{place.as_posix()}:{number}: {line.strip()[:MAX_MATCH_CHARS]}")
                if len(found) >= MAX_MATCHES:
                    return "\n".join([*found, f"… only the first {MAX_MATCHES} are shown: look for something rarer"])
    return "\n".join(found) or "(nothing found)"


def _lines(folder: Folder, path: str) -> list[tuple[int, str]]:
    try:
        return list(enumerate(lines_of(as_text(folder.read(path), path)), start=1))
    except ToolError:
        # Binary, unreadable, or gone meanwhile: nothing to find in it.
        return []
