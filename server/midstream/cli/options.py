"""Options that every client command has, and the way from a command to the event loop."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Annotated, Any

import structlog
import typer

from midstream.cli.failure import EXIT_FAILED, EXIT_INTERRUPTED, Explained, explain
from midstream.cli.invoked import URL_VARIABLE

Url = Annotated[str, typer.Option("--url", envvar=URL_VARIABLE, help="The server's address.")]
Token = Annotated[
    str | None,
    typer.Option("--token", envvar="MIDSTREAM_TOKEN", help="The server's bearer token.", show_envvar=True),
]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, as `midstream runs` lists it.")]
Status = Annotated[str | None, typer.Option(help="Only runs that are queued, running, waiting, completed, …")]
Thread = Annotated[str | None, typer.Option(help="Only runs of this conversation.")]
Limit = Annotated[int, typer.Option(min=1, max=200, help="How many.")]


def say_error(text: str) -> None:
    typer.echo(f"midstream: {text}", err=True)


def run_client(work: Coroutine[Any, Any, int | None], *, url: str) -> None:
    """Do `work` and leave with its exit code, or with one clear line."""
    _configure_logging()
    try:
        code = asyncio.run(work)
    except Explained as error:
        say_error(explain(error, url=url))
        code = EXIT_FAILED
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`… | head`): as a program that was told so by the signal.
        _mute()
        code = 128 + signal.SIGPIPE
    raise typer.Exit(code or 0)


def _configure_logging() -> None:
    """Warnings on stderr, one line each, values quoted: output is for what was asked for."""
    with_traceback = [structlog.processors.format_exc_info] if sys.flags.dev_mode else [_without_traceback]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            *with_traceback,
            structlog.processors.KeyValueRenderer(key_order=["level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _without_traceback(_logger: object, _name: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    error = fields.pop("exc_info", None)
    if isinstance(error, BaseException):
        fields["error"] = f"{type(error).__name__}: {error}"
    return fields


def _mute() -> None:
    """Keep the interpreter from flushing into the closed pipe at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
