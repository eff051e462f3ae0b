"""`midstream serve`: run a server in this process."""

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from midstream.cli.failure import EXIT_FAILED
from midstream.cli.invoked import invoked
from midstream.cli.options import say_error

if TYPE_CHECKING:
    from midstream.settings import Settings


class NoApp(Exception):
    """`module:app` names nothing that can be served; the text says why."""


def serve_command(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODULE:APP]",
            help="Your app, found from this folder. Without it: a copilot for this folder's files.",
        ),
    ] = None,
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on [MIDSTREAM_HOST; 127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on [MIDSTREAM_PORT; 8484].")] = None,
    store: Annotated[str | None, typer.Option(help="memory: or sqlite:///PATH [MIDSTREAM_STORE].")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A model's name, local, or scripted[:PATH] [MIDSTREAM_MODEL; by what keys are set]."),
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="The bearer token clients must send [MIDSTREAM_TOKEN; none].")
    ] = None,
    workspace: Annotated[
        Path | None, typer.Option(help="The copilot's folder [MIDSTREAM_WORKSPACE; this one].")
    ] = None,
    allowed_origins: Annotated[
        str | None, typer.Option(help="Web pages that may connect, separated by commas [MIDSTREAM_ALLOWED_ORIGINS].")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error [MIDSTREAM_LOG_LEVEL].")] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json [MIDSTREAM_LOG_FORMAT].")] = None,
) -> None:
    """Serve an app's agents, or the built-in copilot for this folder.

    Every setting is also an environment variable MIDSTREAM_<NAME>; an option wins over it.
    """
    # Imported here: the server takes a second that a client's command should not.
    from midstream.app import Midstream  # noqa: PLC0415
    from midstream.serving import serve  # noqa: PLC0415
    from midstream.settings import BadSettings, load_settings  # noqa: PLC0415

    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "store": store,
        "model": model,
        "token": token,
        "workspace": workspace,
        "allowed_origins": allowed_origins,
        "log_level": log_level,
        "log_format": log_format,
    }
    given = {name: value for name, value in given.items() if value is not None}
    try:
        settings: Settings = load_settings(**given)
        if target is None:
            app: Any = Midstream(settings=settings)
        else:
            # An app reads its settings where it is made; what was said here must win there too.
            os.environ.update(
                {f"MIDSTREAM_{name.upper()}": str(value) for name, value in given.items() if value is not None}
            )
            app = find_app(target)
    except (BadSettings, NoApp) as error:
        say_error(f"cannot start: {error}")
        raise typer.Exit(EXIT_FAILED) from None
    raise typer.Exit(serve(app, settings=settings, program=invoked()))


def find_app(target: str, *, folder: Path | None = None) -> Any:
    """The ASGI application that `module:attribute` names (`app` when only a module is). Raises `NoApp`."""
    module_name, _, attribute = target.partition(":")
    attribute = attribute or "app"
    if not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        raise NoApp(f"{target!r} names no app; write MODULE:APP, such as support:app")
    here = folder or Path.cwd()
    # As `python -m` does it: what is in this folder comes first.
    sys.path.insert(0, str(here))
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and _asked_for(module_name, error.name):
            raise NoApp(f"there is no module {module_name!r} in {here} or among the installed ones") from error
        raise NoApp(f"importing {module_name!r} failed: {type(error).__name__}: {error}{_where(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise NoApp(f"{module_name!r} has no {attribute!r}{_instead(module_name, found)}")
        found = getattr(found, part)
    if isinstance(found, type) or not callable(found):
        what = "a class" if isinstance(found, type) else f"of type {type(found).__name__}"
        raise NoApp(f"{target!r} is {what}, not an app: make one with Midstream([Agent(…)])")
    return found


def _asked_for(module_name: str, missing: str | None) -> bool:
    """Whether the module itself is missing, not one that it imports."""
    return missing is not None and (module_name == missing or module_name.startswith(f"{missing}."))


def _where(error: Exception) -> str:
    if isinstance(error, SyntaxError):
        # Its own text says where; the last frame is the importer's.
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    # A mistake in a declaration is found in here and made in the app.
    here = str(Path(__file__).parents[1])
    last = next((frame for frame in reversed(frames) if not frame.filename.startswith((here, "<"))), None)
    return f" ({Path(last.filename).name}, line {last.lineno})" if last else ""


def _instead(module_name: str, module: Any) -> str:
    from midstream.app import Midstream  # noqa: PLC0415 - as above

    names = [name for name, value in vars(module).items() if isinstance(value, Midstream)]
    return f"; do you mean {' or '.join(f'{module_name}:{name}' for name in names)}?" if names else ""
