"""How this program is called from where it was called: what a person is told to type must work as it stands."""

import shutil
import sys
from pathlib import Path
from typing import Final

NAME: Final = "midstream"


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
