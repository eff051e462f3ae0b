"""`midstream runs delete`: runs that have ended, erased for good; by name, or by how long ago they ended."""

import re
import sys
from collections.abc import AsyncIterator
from typing import Annotated, Final

import msgspec
import typer

from midstream.cli.invoked import DEFAULT_URL
from midstream.cli.listing import runs_command
from midstream.cli.options import Limit, Status, Thread, Token, Url, run_client
from midstream.client import Address, Rest
from midstream.client.safe_text import safe_line
from midstream.clock import SystemClock
from midstream_protocol.codec import parse_iso
from midstream_protocol.errors import NotFound
from midstream_protocol.events import TERMINAL_STATUSES

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PAGE: Final = 200

runs_app = typer.Typer(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})


class _Line(msgspec.Struct):
    """As much of an event as is looked at here."""

    ts: str = ""


@runs_app.callback()
def runs_group(
    context: typer.Context,
    *,
    url: Url = DEFAULT_URL,
    token: Token = None,
    status: Status = None,
    thread: Thread = None,
    limit: Limit = 20,
) -> None:
    """List runs, newest first."""
    context.obj = (url, token)
    if context.invoked_subcommand is None:
        runs_command(url=url, token=token, status=status, thread=thread, limit=limit)


@runs_app.command("delete")
def delete_command(
    context: typer.Context,
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN…", help="Ids, as `midstream runs` lists them.")
    ] = None,
    *,
    url: Annotated[str | None, typer.Option("--url", help="The server's address.")] = None,
    token: Annotated[str | None, typer.Option("--token", help="The server's bearer token.")] = None,
    ended_before: Annotated[
        str | None, typer.Option(help="All that ended so long ago or longer: 90s, 45m, 12h, 30d, 8w.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Erase runs that have ended, with everything that is kept of them. This cannot be undone."""
    if bool(runs) == (ended_before is not None):
        raise typer.BadParameter("name the runs to delete, or say --ended-before, and not both")
    age_s = None if ended_before is None else _seconds(ended_before)
    url, token = url or context.obj[0], token or context.obj[1]
    run_client(_delete(url, token, runs or [], age_s=age_s, yes=yes), url=url)


async def _delete(url: str, token: str | None, runs: list[str], *, age_s: float | None, yes: bool) -> int:
    rest = Rest(Address(url), token=token)
    try:
        if age_s is not None:
            runs = [run async for run in _ended_before(rest, age_s)]
        if not runs:
            typer.echo("no run ended as long ago as that")
            return 0
        if not yes and not _agreed(runs, named=age_s is None):
            return 1
        for run in runs:
            try:
                await rest.delete(run)
            except NotFound:
                if age_s is None:
                    raise
                # Another was quicker: it is gone, which is what was wanted.
                continue
            typer.echo(f"deleted: {safe_line(run)}")
    finally:
        await rest.aclose()
    return 0


async def _ended_before(rest: Rest, age_s: float) -> AsyncIterator[str]:
    """The ids of runs that ended `age_s` ago or longer."""
    latest_ms = SystemClock().now_ms() - age_s * 1000
    cursor: str | None = None
    while True:
        page = await rest.runs(limit=_PAGE, cursor=cursor)
        for item in page.get("items", []):
            if item.get("status") not in TERMINAL_STATUSES:
                continue
            run = str(item["run_id"])
            try:
                async for line in rest.export(run, since_seq=int(item["cursor"]["seq"]) - 1):
                    if parse_iso(msgspec.json.decode(line, type=_Line).ts) <= latest_ms:
                        yield run
            except NotFound:
                continue
        cursor = page.get("next_cursor")
        if cursor is None:
            return


def _agreed(runs: list[str], *, named: bool) -> bool:
    what = safe_line(runs[0]) if len(runs) == 1 else f"{len(runs)} runs"
    if not sys.stdin.isatty():
        if named:
            # A script that names a run means it.
            return True
        typer.echo(f"this would delete {what} for good: say --yes", err=True)
        return False
    return typer.confirm(f"Delete {what} for good?")


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text.strip())
    if found is None:
        raise typer.BadParameter(f"--ended-before {text}: say how long ago, as 90s, 45m, 12h, 30d or 8w")
    return int(found[1]) * _UNITS[found[2]]
