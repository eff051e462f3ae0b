"""The terminal program. `main` is its entry point."""

from midstream.cli.program import main

__all__ = ["main"]
