"""The shell commands that the guides show are ones that the server takes."""

import re
import shlex

import pytest

from tests.house.checkout import ROOT

PAGES = ["README.md", *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").glob("*.md")))]


def requests(page: str) -> list[str]:
    """The curl commands of its shell blocks, each with its continued lines and quoted ones."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    return [
        found
        for block in blocks
        for found in re.findall(r"^ *curl (?:'[^']*'|\"[^\"]*\"|\\\n|[^\n'\"])*", block, re.MULTILINE)
    ]


@pytest.mark.parametrize("page", PAGES)
def test_a_body_is_sent_as_json(page: str) -> None:
    for command in requests(page):
        words = shlex.split(command, comments=True)
        if any(word in ("-d", "--data") for word in words):
            # Without it curl calls the body a form, which is refused (415).
            assert "content-type: application/json" in [word.lower() for word in words], command


def test_there_are_such_commands() -> None:
    assert sum(len(requests(page)) for page in PAGES) >= 8
