"""`midstream runs`, `midstream agents` and `midstream export`: what is there."""

import sys
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from midstream.cli.invoked import DEFAULT_URL
from midstream.cli.options import Limit, RunId, Status, Thread, Token, Url, run_client
from midstream.client import Address, Rest
from midstream.client.safe_text import safe_line, safe_text


def runs_command(
    *,
    url: Url = DEFAULT_URL,
    token: Token = None,
    status: Status = None,
    thread: Thread = None,
    limit: Limit = 20,
) -> None:
    """List runs, newest first."""
    run_client(_runs(url, token, status=status, thread=thread, limit=limit), url=url)


async def _runs(url: str, token: str | None, *, status: str | None, thread: str | None, limit: int) -> None:
    rest = Rest(Address(url), token=token)
    try:
        page = await rest.runs(status=status, thread_id=thread, limit=limit)
    finally:
        await rest.aclose()
    print_table(
        ("RUN", "STATUS", "AGENT", "EVENTS", "WAITS FOR", "ABOUT"),
        [
            (
                item.get("run_id"),
                item.get("status"),
                item.get("agent"),
                item.get("cursor", {}).get("seq"),
                ", ".join(str(each.get("label") or each.get("question") or "") for each in item.get("pending", [])),
                _about(item),
            )
            for item in page.get("items", [])
        ],
        flexible={"WAITS FOR", "ABOUT"},
    )
    if page.get("next_cursor"):
        typer.echo("there are more; ask with a larger --limit", err=True)


def _about(item: dict[str, Any]) -> str:
    """Its title, or what was asked; why it ended badly; what it does."""
    ending = item.get("failure") or item.get("cancelled") or {}
    why = ending.get("text") or ending.get("reason")
    # What waits has a column of its own.
    doing = item.get("status_text") if item.get("status") != "waiting" else None
    return " · ".join(str(each) for each in (item.get("title") or item.get("input"), why or doing) if each)


def agents_command(*, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """List the server's agents and their tools (* asks before it acts)."""
    run_client(_agents(url, token), url=url)


async def _agents(url: str, token: str | None) -> None:
    rest = Rest(Address(url), token=token)
    try:
        page = await rest.agents()
    finally:
        await rest.aclose()
    print_table(
        ("AGENT", "MODEL", "TOOLS", "DESCRIPTION"),
        [
            (item.get("name"), item.get("model"), _names(item.get("tools")), item.get("description"))
            for item in page.get("items", [])
        ],
        flexible={"TOOLS", "DESCRIPTION"},
    )


def _names(tools: Any) -> str:
    """Tools by name; with a star, those that may ask first."""
    named = [each for each in tools or () if isinstance(each, dict)]
    return ", ".join(f"{each.get('name')}{'' if each.get('approval') in (None, 'never') else '*'}" for each in named)


def export_command(
    run: RunId,
    *,
    url: Url = DEFAULT_URL,
    token: Token = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file instead of standard output.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run ends.")] = False,
) -> None:
    """Write a run's log as NDJSON: byte for byte what is stored, one event a line."""
    run_client(_export(url, token, run, output=output, follow=follow), url=url)


async def _export(url: str, token: str | None, run_id: str, *, output: Path | None, follow: bool) -> None:
    rest = Rest(Address(url), token=token)
    try:
        # Asked first, also when following: a run that does not exist must not leave an empty file.
        head = (await rest.view(run_id)).cursor.seq
        file: IO[bytes] = sys.stdout.buffer if output is None else _opened(output)
        try:
            to_terminal = output is None and sys.stdout.isatty()
            async for line in rest.export(run_id, until_seq=None if follow else head):
                # Byte for byte, but not into a terminal, which would obey some of the bytes.
                file.write(safe_text(line.decode()).encode() if to_terminal else line)
                if follow:
                    file.flush()
            file.flush()
        finally:
            if output is not None:
                file.close()
    finally:
        await rest.aclose()


def _opened(output: Path) -> IO[bytes]:
    try:
        return output.open("wb")
    except OSError as error:
        raise typer.BadParameter(f"{output} cannot be written: {error.strerror}") from error


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def print_table(columns: tuple[str, ...], rows: list[tuple[Any, ...]], *, flexible: set[str]) -> None:
    """Rows, to people as a table. `flexible` columns are broken into lines where the terminal is narrow; the others can
    be copied as they are.
    """
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(safe_line(_cell(value)) for value in row))
        return
    table = Table(box=None, pad_edge=False)
    for name in columns:
        # Folded where all else fails: an id that was cut short is of no use.
        table.add_column(name, header_style="bold", overflow="fold", no_wrap=name not in flexible)
    for row in rows:
        table.add_row(*(Text(safe_line(_cell(value))) for value in row))
    Console(highlight=False).print(table)
