"""How this program is called from where it was called: what a person is told to type must work as it stands."""

import os
import shutil
import sys
from pathlib import Path
from typing import Final

NAME: Final = "midstream"
DEFAULT_URL: Final = "http://127.0.0.1:8484"
URL_VARIABLE: Final = "MIDSTREAM_URL"


def invoked() -> str:
    """The program's name; its path where that name would find nothing, or another one, as in a checkout."""
    called = Path(sys.argv[0])
    if called.name != NAME or not called.is_file():
        # As a module, or inside of another program.
        return NAME
    found = shutil.which(NAME)
    if found is not None and Path(found).samefile(called):
        return NAME
    path, here = called.absolute(), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def command(words: str, *, url: str) -> str:
    """What to type to give this command to the server at `url`, from another terminal like this one."""
    elsewhere = "" if url == (os.environ.get(URL_VARIABLE) or DEFAULT_URL) else f" --url {url}"
    return f"{invoked()} {words}{elsewhere}"
