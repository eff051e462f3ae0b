"""The program `midstream`: its commands, and the last boundary before a person."""

import importlib.metadata
import json
import sys
from collections.abc import Callable
from typing import Annotated, Final

import typer

from midstream.cli.deleting import runs_app
from midstream.cli.failure import EXIT_FAILED
from midstream.cli.grants import grants_app
from midstream.cli.listing import agents_command, export_command
from midstream.cli.options import say_error
from midstream.cli.serving import serve_command
from midstream.cli.steering import (
    answer_command,
    approve_command,
    cancel_command,
    correct_command,
    deny_command,
)
from midstream.cli.talking import chat_command, tail_command
from midstream.cli.top import top_command
from midstream_protocol import schema

app = typer.Typer(
    name="midstream",
    help="Watch an AI agent work, approve or deny what it wants to do, correct it, stop it, and come back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "serve": serve_command,
    "chat": chat_command,
    "tail": tail_command,
    "export": export_command,
    "approve": approve_command,
    "deny": deny_command,
    "answer": answer_command,
    "correct": correct_command,
    "cancel": cancel_command,
    "agents": agents_command,
    "top": top_command,
}

for name, command in _COMMANDS.items():
    app.command(name)(command)
app.add_typer(runs_app, name="runs")
app.add_typer(grants_app, name="grants")


@app.command("schema")
def schema_command() -> None:
    """Print the protocol's JSON Schema."""
    typer.echo(json.dumps(schema.build(), ensure_ascii=False, indent=2))


def _version(asked: bool) -> None:  # noqa: FBT001 - a callback's signature is the library's
    if asked:
        typer.echo(f"midstream {importlib.metadata.version('midstream')}")
        raise typer.Exit


@app.callback()
def _program(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version


def main() -> None:
    """Run the program. Every failure is one line that says what to do; `python -X dev` shows a defect's traceback."""
    try:
        app()
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        say_error(
            f"a defect of this program: {type(error).__name__}: {error}; `python -X dev -m midstream.cli` shows where"
        )
        sys.exit(EXIT_FAILED)
