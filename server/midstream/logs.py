"""Who hears what is logged: structlog where the program has set it up, else the standard library's logging.

structlog's own default prints to standard output, and draws a traceback with the local variables of every frame: a
program that only uses the client, or serves the app by itself, would find results, keys and megabytes of text in the
wrong place.
"""

import logging
from typing import Any

import structlog


class Logger:
    """Decides for each line, because a program may set structlog up at any time."""

    def __init__(self, name: str) -> None:
        self._structured = structlog.get_logger(name)
        self._plain = logging.getLogger(name)

    def info(self, event: str, **about: Any) -> None:
        self._say(logging.INFO, event, about)

    def warning(self, event: str, **about: Any) -> None:
        self._say(logging.WARNING, event, about)

    def error(self, event: str, **about: Any) -> None:
        self._say(logging.ERROR, event, about)

    def exception(self, event: str, **about: Any) -> None:
        """An error, with the exception that is being handled."""
        self._say(logging.ERROR, event, {"exc_info": True, **about})

    def _say(self, level: int, event: str, about: dict[str, Any]) -> None:
        if structlog.is_configured():
            self._structured.log(level, event, **about)
            return
        exc_info = about.pop("exc_info", None)
        # Quoted: what a server said must not look like a line of this program's.
        said = "".join(f" {name}={value!r}" for name, value in about.items())
        self._plain.log(level, "%s%s", event, said, exc_info=exc_info)
