"""What a wheel has beside the packages' own files: the built console, and the protocol's AsyncAPI document.

The console is built first where it is missing or stale; the source distribution has it too. An editable install needs
none. MIDSTREAM_WITHOUT_CONSOLE=1 packs none: everything else works, and `/` says so.
"""

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WITHOUT = "MIDSTREAM_WITHOUT_CONSOLE"


class ConsoleHook(BuildHookInterface[Any]):
    def dependencies(self) -> list[str]:
        """What an isolated build installs first: a Node, where the system has none that fits."""
        console = _console(self.root)
        if os.environ.get(WITHOUT) or console is None or console.is_fresh() or console.node_folder() is not None:
            return []
        return [console.NODE_PACKAGE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        if self.target_name == "wheel":
            build_data["force_include"]["protocol/schema/asyncapi.json"] = "midstream_protocol/asyncapi.json"
        if os.environ.get(WITHOUT):
            return
        console = _console(self.root)
        if console is None:
            raise RuntimeError(f"clients/ is missing, so the console cannot be built; {WITHOUT}=1 builds without it")
        if not console.is_fresh():
            try:
                console.build()
            except console.CannotBuild as error:
                raise RuntimeError(f"{error}\n{WITHOUT}=1 builds without the console") from None
        # It is ignored by git, and so left out unless it is named.
        build_data["artifacts"].append("/server/midstream/console/")


def _console(root: str) -> ModuleType | None:
    """clients/console/build.py, which is in no package."""
    path = Path(root) / "clients" / "console" / "build.py"
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location("console_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
