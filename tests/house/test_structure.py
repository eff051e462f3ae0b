"""Rules about the code as a whole that no linter knows."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.house.checkout import PACKAGES, ROOT, modules, read, trees

MAX_LINES = 700
VAGUE = {
    "base",
    "common",
    "core_utils",
    "handler",
    "handlers",
    "helper",
    "helpers",
    "manager",
    "misc",
    "service",
    "utils",
}
# One adapter imports one vendor's SDK; everything else sees our contract.
ADAPTERS = {
    "anthropic": {
        "agents/providers/anthropic.py",
        "agents/providers/anthropic_answer.py",
        "agents/providers/anthropic_errors.py",
        "agents/providers/anthropic_request.py",
    },
    "xllamacpp": {"agents/providers/local_server.py"},
    "jsonschema_rs": {"agents/tools/validate.py"},
    "pydantic": {"settings.py"},
    "yaml": {"agents/providers/script.py"},
}

# uvicorn finds httptools by itself; redis is for the store that `log.open` names and does not have yet.
NOT_IMPORTED = {"httptools", "redis"}


def test_no_module_is_longer_than_anyone_reads():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


def test_every_module_says_what_it_is_for():
    silent = [
        str(path.relative_to(ROOT))
        for path, tree in trees()
        if ast.get_docstring(tree) is None and path.name != "__main__.py" and tree.body
    ]
    assert silent == []


def test_tasks_are_created_in_one_place():
    makers = {"create_task", "ensure_future", "run_coroutine_threadsafe"}
    places = {
        path.name
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")) in makers
    }
    assert places == {"tasks.py"}


def test_modules_are_named_after_what_they_own():
    vague = [path for path in modules() if path.stem.strip("_") in VAGUE or path.parent.name in VAGUE]
    assert vague == []


def test_packages_only_re_export():
    allowed = (ast.Import, ast.ImportFrom, ast.Assign)
    for path, tree in trees():
        # The root re-exports too, but by name when it is used: a client need not load the server.
        if path.name != "__init__.py" or path.parent == PACKAGES[0]:
            continue
        body = tree.body[1:] if ast.get_docstring(tree) is not None else tree.body
        assert all(isinstance(node, allowed) for node in body), path


def test_an_sdk_is_imported_by_its_adapter_alone():
    found: dict[str, set[str]] = {sdk: set() for sdk in ADAPTERS}
    for path, tree in trees():
        for name in imported(tree):
            if name in found:
                found[name].add(path.relative_to(PACKAGES[0]).as_posix())
    assert {sdk: places - ADAPTERS[sdk] for sdk, places in found.items()} == {sdk: set() for sdk in ADAPTERS}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    project = tomllib.loads(read("pyproject.toml"))["project"]
    extras = [each for group in project["optional-dependencies"].values() for each in group]
    declared = {canonical(re.split(r"[<>=;\s]", each, maxsplit=1)[0]) for each in project["dependencies"] + extras}
    own = {package.name for package in PACKAGES}
    outside = {name for _, tree in trees() for name in imported(tree)} - set(sys.stdlib_module_names) - own
    owners = packages_distributions()
    used = {canonical(owners[name][0]) for name in outside if name in owners}
    assert used - declared == set()
    assert declared - used - NOT_IMPORTED == set()


def test_the_layers_hold():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def imported(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").partition(".")[0])
    return names


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
