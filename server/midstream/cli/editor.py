"""Let a person edit a JSON object in the editor of their choice."""

import asyncio
import json
import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

FALLBACKS: Final = ("editor", "nano", "vi")
"""Tried in this order where neither variable is set: the system's choice, then what is usually there."""


async def edited(value: dict[str, Any]) -> dict[str, Any]:
    """`value` as it was left in `$VISUAL`, `$EDITOR` or one of `FALLBACKS`. Raises ValueError that says what to do.

    The caller keeps its hands off the terminal meanwhile.
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or next(filter(shutil.which, FALLBACKS), None)
    if not editor:
        raise ValueError(
            "there is no editor, and $EDITOR is not set; type e and the arguments to replace."
            f" Now: {json.dumps(value, ensure_ascii=False)}"
        )
    # Made by mkstemp: readable by its owner alone, for it may hold what others must not see.
    handle, name = tempfile.mkstemp(prefix="midstream-", suffix=".json")
    path = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
        try:
            process = await asyncio.create_subprocess_exec(*shlex.split(editor), name)
        except OSError as error:
            raise ValueError(f"the editor {editor!r} does not start: {error}") from error
        if (code := await process.wait()) != 0:
            raise ValueError(f"the editor ended with {code}; nothing was sent")
        return _parsed(path)
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"what was edited is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("the arguments must stay a JSON object")  # noqa: TRY004 - it is the text that is wrong
    return value
