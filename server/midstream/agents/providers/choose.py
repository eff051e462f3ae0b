"""Which model answers: one rule, one place. The modules of the providers are imported only when chosen."""

from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from midstream.agents.providers.contract import Provider
from midstream.agents.providers.script import load_script
from midstream.agents.providers.scripted import ScriptedProvider
from midstream.clock import Clock

# Answers when there is a key or a base URL and no setting names a model. The only model that the code names.
DEFAULT_ANTHROPIC_MODEL: Final = "claude-sonnet-5-5"

LOCAL: Final = "local"
_SCRIPTED: Final = "scripted"

TOUR: Final = Path(__file__).with_name("demo.yaml")
"""The script that `scripted` plays when it is given none: a tour of what a run is."""


def choose_provider(
    *,
    model: str | None,
    api_key: str | None,
    base_url: str | None,
    local_ok: bool,
    script: str | None,
    clock: Clock,
) -> tuple[Provider, str]:
    """The provider, whose `default_model` is the chosen model, and a sentence for the start line.

    `model` is the setting: `scripted:PATH`, `scripted` (`script`, else a tour that we ship), `local`, `anthropic:NAME`,
    or a plain NAME of Anthropic's API. None: scripted if there is a script, Anthropic if there is a key or a base URL,
    else the embedded model if `local_ok`. Raises `ValueError` that names the setting to change. The choice may take a
    second (imports).
    """
    kind, _, name = (model or "").strip().partition(":")
    match kind:
        case "":
            if script:
                return _scripted(script, clock)
            if api_key or base_url:
                return _anthropic(DEFAULT_ANTHROPIC_MODEL, api_key, base_url)
            if not local_ok:
                raise ValueError(f"no model is set and the embedded one is off: {_WAYS}")
            return _local(f"no model is set: {_WAYS}")
        case "scripted":
            return _scripted(name or script or str(TOUR), clock)
        case "local":
            if not local_ok:
                raise ValueError("MIDSTREAM_MODEL (--model) is `local`, but the embedded model is switched off")
            return _local("MIDSTREAM_MODEL (--model) is `local`")
        case "anthropic":
            if not name:
                raise ValueError("MIDSTREAM_MODEL (--model) is `anthropic:` without the name of a model")
            return _anthropic(name, api_key, base_url)
        case _:
            # A plain name, which may itself hold a colon (`qwen3:8b` of a compatible server).
            return _anthropic((model or "").strip(), api_key, base_url)


_WAYS: Final = (
    "set ANTHROPIC_API_KEY, or ANTHROPIC_BASE_URL for a compatible server, "
    "or MIDSTREAM_MODEL (--model) to `local` or `scripted`"
)


def _scripted(path: str, clock: Clock) -> tuple[Provider, str]:
    try:
        script = load_script(path)
    except ValueError as error:
        raise ValueError(f"MIDSTREAM_MODEL (--model): {error}") from error
    source = "a tour" if path == str(TOUR) else f"from {path}"
    return ScriptedProvider(script, clock=clock), f"the answers are scripted, {source} (no real model)"


def _anthropic(model: str, api_key: str | None, base_url: str | None) -> tuple[Provider, str]:
    if not api_key and not base_url:
        raise ValueError(f"the model {model!r} needs ANTHROPIC_API_KEY, or ANTHROPIC_BASE_URL for a compatible server")
    try:
        provider = _adapter()(api_key=api_key or None, base_url=base_url or None, default_model=model)
    except ValueError as error:
        raise ValueError(f"ANTHROPIC_BASE_URL: {error}") from error
    return provider, f"{model} answers, at {_shown(base_url) if base_url else 'the API of Anthropic'}"


def _shown(url: str) -> str:
    """Without what may be a secret in it: a user and password, a query."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _adapter() -> Callable[..., Provider]:
    from midstream.agents.providers.anthropic import AnthropicProvider  # noqa: PLC0415 - takes a second

    return AnthropicProvider


def _local(why: str) -> tuple[Provider, str]:
    from midstream.agents.providers.local import MODEL, LocalProvider, local_available  # noqa: PLC0415 - the same

    reason = local_available()
    if reason is not None:
        raise ValueError(f"{why}; the embedded model cannot answer: {reason}")
    return LocalProvider(), (
        f"{MODEL} answers, embedded: real tokens, but nonsense and no tools; "
        "set ANTHROPIC_API_KEY or --model for a real assistant"
    )
