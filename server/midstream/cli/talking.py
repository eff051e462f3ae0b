"""`midstream chat` and `midstream tail`: runs at a terminal."""

import sys
from typing import Annotated

import typer

from midstream.cli.chat import ChatOptions, chat
from midstream.cli.invoked import DEFAULT_URL
from midstream.cli.options import RunId, Token, Url, run_client


def chat_command(
    text: Annotated[
        str | None, typer.Argument(help="What is to be done. Without it: a prompt, or standard input.")
    ] = None,
    *,
    url: Url = DEFAULT_URL,
    token: Token = None,
    agent: Annotated[str | None, typer.Option(help="The agent; `midstream agents` lists them.")] = None,
    thread: Annotated[str | None, typer.Option(help="Go on with this conversation.")] = None,
    run: Annotated[str | None, typer.Option(help="Come back to this run instead of starting one.")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Approve everything without asking. It is said each time.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the events as they are, one JSON text a line.")] = False,
) -> None:
    """Start a run and talk to it: watch, approve, correct, cancel.

    While it runs: type to correct it, Enter to hold the output, /help for more, Ctrl-C to cancel.
    Ends with 0 completed, 1 failed, 130 cancelled.
    """
    if text is not None and run is not None:
        raise typer.BadParameter("a new text starts a new run; leave out one of TEXT and --run")
    if text is None and run is None:
        text = _from_stdin(json=json)
    options = ChatOptions(
        url=url, token=token, text=text, run_id=run, agent=agent, thread_id=thread, yes=yes, json=json
    )
    run_client(chat(options), url=url)


def _from_stdin(*, json: bool) -> str | None:
    """What to do, from a pipe; None: a person will type it."""
    if not sys.stdin.isatty():
        text = sys.stdin.read().strip()
        if not text:
            raise typer.BadParameter("standard input is empty; say what is to be done")
        return text
    if json or not sys.stdout.isatty():
        raise typer.BadParameter("a prompt needs a terminal to write to; say what is to be done")
    return None


def tail_command(
    run: RunId,
    *,
    url: Url = DEFAULT_URL,
    token: Token = None,
    since: Annotated[int, typer.Option(min=0, help="Begin after this event's seq.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the events as they are, one JSON text a line.")] = False,
) -> None:
    """Follow a run, live, until it ends. Only watches."""
    options = ChatOptions(url=url, token=token, run_id=run, since_seq=since, json=json, watch_only=True)
    run_client(chat(options), url=url)
