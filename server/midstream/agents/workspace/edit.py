"""Changing one place of one file. A person sees the difference first, and the file must then still be the same."""

import difflib
import hashlib
import re
from typing import Any, Final

from midstream.agents.tools.context import ToolError
from midstream.agents.tools.definition import Preview, Tool, tool
from midstream.agents.workspace.folder import Folder, as_text, lines_of

TIMEOUT_S: Final = 20.0

CONTEXT: Final = 3
"""Unchanged lines shown before and after a change."""

_HUNK: Final = re.compile(r"^@@ -(\d+)(,\d+)? \+(\d+)(,\d+)? @@")


def editing_tool(folder: Folder) -> Tool:
    """`edit_file` over one folder."""

    def preview(args: Any) -> Preview:
        before, after, data = _edited(folder, args.path, args.old, args.new)
        diff = difference(before, after, f"a/{args.path}" if data is not None else "/dev/null", f"b/{args.path}")
        guard = "absent" if data is None else hashlib.sha256(data).hexdigest()
        return Preview(kind="diff", data=diff, guard=guard)

    @tool(approval="always", preview=preview, label="Edit {path}", timeout=TIMEOUT_S)
    def edit_file(path: str, old: str, new: str) -> str:
        """Replace one piece of text in a file, or make a new file. The user sees the difference and decides.

        Args:
            path: The file, relative to the workspace.
            old: The text to replace, word for word as it stands in the file, with enough around it that it occurs
                exactly once. Empty to make a new file.
            new: What to put in its place.
        """
        _, after, data = _edited(folder, path, old, new)
        folder.write(path, after.encode())
        return f"{path} was {'made' if data is None else 'changed'}."

    return edit_file


def difference(before: str, after: str, old_name: str, new_name: str) -> str:
    """The unified diff of a text that was changed in one place.

    What is the same before and after that place is set aside first: difflib takes seconds for a long file, and in one
    whose lines are much alike it finds nothing in common.
    """
    old, new = lines_of(before), lines_of(after)
    room = min(len(old), len(new))
    start = next((n for n in range(room) if old[n] != new[n]), room)
    room -= start
    end = next((n for n in range(room) if old[-1 - n] != new[-1 - n]), room)
    start, end = max(0, start - CONTEXT), max(0, end - CONTEXT)
    found = difflib.unified_diff(
        old[start : len(old) - end], new[start : len(new) - end], old_name, new_name, n=CONTEXT
    )

    def moved(at: re.Match[str]) -> str:
        return f"@@ -{int(at[1]) + start}{at[2] or ''} +{int(at[3]) + start}{at[4] or ''} @@"

    return "".join(_ended(_HUNK.sub(moved, line)) for line in found)


def _edited(folder: Folder, path: str, old: str, new: str) -> tuple[str, str, bytes | None]:
    """The text before and after, and the bytes before (None: there is no such file). Raises `ToolError`."""
    if not folder.exists(path):
        if old:
            raise ToolError(f"{path} does not exist. To make it, leave `old` empty.")
        return "", new, None
    data = folder.read(path)
    text = as_text(data, path)
    if not old:
        raise ToolError(f"{path} is there already: say in `old` what to replace.")
    if "\r\n" in text and "\r" not in old:
        # Models write plain line ends; the file keeps its own.
        old, new = old.replace("\n", "\r\n"), new.replace("\r\n", "\n").replace("\n", "\r\n")
    if old == new:
        raise ToolError("`old` and `new` are the same.")
    count = text.count(old)
    if count == 0:
        raise ToolError(f"`old` does not occur in {path}: read the file and copy it word for word.")
    if count > 1:
        raise ToolError(f"`old` occurs {count} times in {path}: add what stands around it.")
    return text, text.replace(old, new, 1), data


def _ended(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
