"""`midstream grants`: what you approved beyond one run, and taking it back."""

from typing import Annotated

import typer

from midstream.cli.invoked import DEFAULT_URL
from midstream.cli.listing import print_table
from midstream.cli.options import Limit, Token, Url, run_client
from midstream.client import Address, Rest
from midstream.client.safe_text import safe_line

grants_app = typer.Typer(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})


@grants_app.callback()
def grants_group(context: typer.Context, *, url: Url = DEFAULT_URL, token: Token = None, limit: Limit = 50) -> None:
    """List what you approved for whole threads and for all of your runs, newest first."""
    context.obj = (url, token)
    if context.invoked_subcommand is None:
        run_client(_grants(url, token, limit=limit), url=url)


@grants_app.command("revoke")
def revoke_command(
    context: typer.Context,
    grants: Annotated[list[str], typer.Argument(metavar="GRANT…", help="Ids, as `midstream grants` lists them.")],
    *,
    url: Annotated[str | None, typer.Option("--url", help="The server's address.")] = None,
    token: Annotated[str | None, typer.Option("--token", help="The server's bearer token.")] = None,
) -> None:
    """Take grants back: from now on each call is asked about again, also in runs under way."""
    url, token = url or context.obj[0], token or context.obj[1]
    run_client(_revoke(url, token, grants), url=url)


async def _grants(url: str, token: str | None, *, limit: int) -> None:
    rest = Rest(Address(url), token=token)
    try:
        page = await rest.grants(limit=limit)
    finally:
        await rest.aclose()
    print_table(
        ("GRANT", "FOR", "AGENT", "TOOL", "UNTIL", "GIVEN FOR"),
        [
            (
                item.get("grant_id"),
                f"thread {item['thread_id']}" if "thread_id" in item else "every run",
                item.get("agent"),
                item.get("tool"),
                item.get("expires_at") or "revoked",
                (item.get("from") or {}).get("label"),
            )
            for item in page.get("items", [])
        ],
        flexible={"FOR", "GIVEN FOR"},
    )
    if page.get("next_cursor"):
        typer.echo("there are more; ask with a larger --limit", err=True)


async def _revoke(url: str, token: str | None, grants: list[str]) -> None:
    rest = Rest(Address(url), token=token)
    try:
        for grant in grants:
            await rest.revoke_grant(grant)
            typer.echo(f"revoked: {safe_line(grant)}")
    finally:
        await rest.aclose()
