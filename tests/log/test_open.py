"""From an address to a store."""

from pathlib import Path

import pytest

from midstream.log import open_store


@pytest.mark.asyncio
async def test_addresses_name_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("memory:").name == "memory"
    for url, file in (
        ("sqlite:///inside/log.db", tmp_path / "inside" / "log.db"),
        (f"sqlite:///{tmp_path}/absolute.db", tmp_path / "absolute.db"),
        ("sqlite:///with%20space.db?synchronous=full", tmp_path / "with space.db"),
    ):
        store = open_store(url)
        assert not file.exists()
        await store.open()
        assert file.exists()
        assert store.name.startswith("sqlite:///")
        await store.aclose()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://localhost:6379", "not available in this version"),
        ("postgres://x", "sqlite:///relative/path.db"),
        ("sqlite://log.db", "sqlite:////absolute/path.db"),
        ("sqlite:///", "memory:"),
        ("sqlite:///a.db?mode=ro", "names no store"),
        ("memory", "memory:"),
        ("", "names no store"),
    ],
)
def test_other_addresses_are_refused_with_those_there_are(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        open_store(url)
