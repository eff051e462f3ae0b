"""Programs of other people that some tests speak with: a browser, a proxy."""

import os
import shutil

import pytest


def needed(*programs: str, package: str) -> str:
    """The path of the first that is there. Without any the test is skipped; where CI is set it fails, so that nobody
    leaves it out unseen.
    """
    for program in programs:
        if (path := shutil.which(program) or shutil.which(program, path="/usr/sbin")) is not None:
            return path
    reason = f"{programs[0]} is not installed (Debian, Ubuntu: apt install {package})"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
