"""Text of a server, made harmless for a terminal. Pure.

A model, a tool's output or a hostile file can hold escape sequences that move the cursor, rewrite what was printed
(an approval, say), set the clipboard or the window's title, and bidirectional marks that show one thing and mean
another (https://trojansource.codes). All of it is shown instead of obeyed.
"""

import re
from typing import Final

# C0 but tab and newline · DEL and C1 · line and paragraph separators · bidirectional embeddings, overrides and
# isolates · the byte order mark · interlinear annotations · language tags (invisible text).
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_PICTURES: Final = 0x2400
"""Unicode's pictures of control characters: ESC is ␛."""


def safe_text(text: str) -> str:
    """`text` with nothing in it that a terminal acts on but tabs and newlines."""
    return _UNSAFE.sub(_shown, text.replace("\r\n", "\n"))


def safe_line(text: str, *, limit: int = 200) -> str:
    """`text` on one line, at most `limit` characters."""
    line = " ".join(safe_text(text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _shown(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code < 0x20:
        return chr(_PICTURES + code)
    return "␡" if code == 0x7F else f"<U+{code:04X}>"
