"""Every setting of a server, one place: its environment variable is `MIDSTREAM_<NAME>`, its default is here.

`load_settings` raises `BadSettings`, whose text names each wrong variable and says what it takes.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from midstream.agents.limiter import DEFAULT_PACE, Pace
from midstream.agents.providers.contract import DEFAULT_IDLE_TIMEOUT_S
from midstream.gateway.options import GatewayOptions
from midstream.gateway.origin import ANY, host_name, parse_origin
from midstream.log import open_store
from midstream.outbound.endpoint import wrong_with
from midstream.outbound.options import WebhookOptions
from midstream.outbound.signing import key_of
from midstream.runs import Limits

PREFIX: Final = "MIDSTREAM_"

DEFAULT_PORT: Final = 8484
DEFAULT_STORE: Final = "sqlite:///.midstream/midstream.db"

OTHER_VARIABLES: Final = frozenset(
    {"MIDSTREAM_URL", "MIDSTREAM_ARTEFACTS", "MIDSTREAM_PYTHON", "MIDSTREAM_WITHOUT_CONSOLE"}
)
"""Variables with our prefix that are not a server's: the client's address, and what tests and builds are told."""

_RUNS: Final = Limits()
_GATEWAY: Final = GatewayOptions()
_WEBHOOKS: Final = WebhookOptions()


class BadSettings(ValueError):
    """Settings that cannot be used. The text is for the person who set them."""


def _listed(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part for part in (part.strip() for part in value.split(",")) if part)
    return value


def _store(value: str) -> str:
    open_store(value)
    return value


def _origins(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if value != ANY and parse_origin(value) is None:
            raise ValueError(f"{value!r} is not an origin")
    return values


def _hosts(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if value != ANY and host_name(value) is None and host_name(f"[{value}]") is None:
            raise ValueError(f"{value!r} is not a host name")
    return values


def _webhook_events(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if value not in _WEBHOOKS.events:
            raise ValueError(f"{value!r} is no event that can be told of")
    return values


def _blank_is_none(value: Any) -> Any:
    # `--token ""` means no token, not an empty one.
    return None if isinstance(value, str) and not value.strip() else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


_List = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
_Optional = BeforeValidator(_blank_is_none)

_PORT = "a port, 0 to 65535 (0: any free one)"
_BYTES = "a number of bytes, at least 1024"
_COUNT = "a whole number, at least 1"
_OR_NONE = "a whole number, 0 or more (0: no bound of its own)"
_SECONDS = "a number of seconds above 0"
_GRACE = "a number of seconds, 0 or more"


class Settings(BaseSettings):
    """Arguments win over the environment. `description` says what each accepts; the comments say what it does."""

    model_config = SettingsConfigDict(
        # Empty is not set: compose files and CI pass on variables that nobody gave a value.
        env_ignore_empty=True,
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
    )

    # -- where it listens, and to whom
    host: str = Field("127.0.0.1", min_length=1, description="an address or name to listen on, such as 0.0.0.0")
    port: int = Field(DEFAULT_PORT, ge=0, le=65_535, description=_PORT)
    token: Annotated[SecretStr | None, _Optional] = Field(None, description="the bearer token clients must send")
    allowed_hosts: Annotated[_List, AfterValidator(_hosts)] = Field(
        (), description="host names, separated by commas (* for any)"
    )
    allowed_origins: Annotated[_List, AfterValidator(_origins)] = Field(
        (), description="origins such as https://app.example.org, separated by commas (* for any)"
    )
    console: bool = Field(default=_GATEWAY.console, description="on or off")

    # -- what it keeps, and which model answers
    store: Annotated[str, AfterValidator(_store)] = Field(
        DEFAULT_STORE, description="memory: or sqlite:///PATH (an absolute path makes four slashes)"
    )
    sqlite_synchronous: Literal["normal", "full"] = Field(
        "normal", description="normal, or full (what is acknowledged survives a power failure too)"
    )
    model: Annotated[str | None, _Optional] = Field(None, description="a model's name, local, or scripted[:PATH]")
    local_model: bool = Field(default=True, description="true or false: whether the embedded model may be used")
    model_idle_timeout_s: float = Field(DEFAULT_IDLE_TIMEOUT_S, gt=0, description=_SECONDS)
    context_tokens: int = Field(200_000, ge=1024, description="a number of tokens, at least 1024")
    model_max_wait_s: float = Field(DEFAULT_PACE.max_wait_s, ge=0, description=_GRACE)
    model_retry_spacing_s: float = Field(DEFAULT_PACE.spacing_s, gt=0, description=_SECONDS)
    workspace: Path = Field(Path(), description="the folder that the built-in agent works in")

    # -- connections
    heartbeat_s: float = Field(_GATEWAY.heartbeat_s, gt=0, le=3600, description=_SECONDS)
    send_timeout_s: float = Field(_GATEWAY.send_timeout_s, gt=0, description=_SECONDS)
    receipt_wait_s: float = Field(_GATEWAY.receipt_wait_s, gt=0, description=_SECONDS)
    max_connections: int = Field(_GATEWAY.max_connections, ge=1, description=_COUNT)
    max_connections_per_user: int = Field(_GATEWAY.max_connections_per_user, ge=0, description=_OR_NONE)
    max_connections_per_address: int = Field(_GATEWAY.max_connections_per_address, ge=0, description=_OR_NONE)
    max_connection_age_s: float = Field(_GATEWAY.max_connection_age_s, ge=0, description=f"{_GRACE} (0: never)")
    write_buffer_bytes: int = Field(_GATEWAY.write_buffer_bytes, ge=1024, description=_BYTES)
    frames_per_write: int = Field(_GATEWAY.frames_per_write, ge=1, description=_COUNT)
    ping_interval_s: float = Field(_GATEWAY.ping_interval_s, gt=0, description=_SECONDS)
    ping_timeout_s: float = Field(_GATEWAY.ping_timeout_s, gt=0, description=_SECONDS)
    max_wait_s: float = Field(_GATEWAY.max_wait_s, ge=0, description=_GRACE)
    poll_after_s: float = Field(_GATEWAY.poll_after_s, gt=0, description=_SECONDS)
    feed_events_s: float = Field(_GATEWAY.feed_events_s, gt=0, description="a number of events a second above 0")
    max_feeds: int = Field(_GATEWAY.max_feeds, ge=0, description="a whole number, 0 or more")
    max_runs_per_connection: int = Field(_GATEWAY.max_runs, ge=1, description=_COUNT)
    max_errors: int = Field(_GATEWAY.max_errors, ge=1, description=_COUNT)
    commands_in_flight: int = Field(_GATEWAY.commands_in_flight, ge=1, description=_COUNT)
    command_memory_s: int = Field(_GATEWAY.command_memory_s, ge=1, description=_COUNT)
    max_frame_bytes: int = Field(_GATEWAY.max_frame_bytes, ge=1024, description=_BYTES)
    max_input_bytes: int = Field(_RUNS.max_input_bytes, ge=1024, description=_BYTES)
    max_tool_result_bytes: int = Field(_RUNS.max_tool_result_bytes, ge=1024, description=_BYTES)

    # -- runs (see runs.contract.Limits)
    output_lane: int = Field(_RUNS.output_lane, ge=1, description=_COUNT)
    emit_wait_s: float = Field(_RUNS.emit_wait_s, gt=0, description=_SECONDS)
    coalesce_ms: int = Field(_RUNS.coalesce_ms, ge=0, le=60_000, description="milliseconds, 0 (off) to 60000")
    coalesce_bytes: int = Field(_RUNS.coalesce_bytes, ge=1024, description=_BYTES)
    gather_ms: float = Field(_RUNS.gather_ms, ge=0, le=60_000, description="milliseconds, 0 (off) to 60000")
    lag_events: int = Field(_RUNS.lag_events, ge=1, description=_COUNT)
    max_run_events: int = Field(_RUNS.max_run_events, ge=1, description=_COUNT)
    max_run_bytes: int = Field(_RUNS.max_run_bytes, ge=1024, description=_BYTES)
    max_replay_events: int = Field(_RUNS.max_replay_events, ge=1, description=_COUNT)
    max_replay_bytes: int = Field(_RUNS.max_replay_bytes, ge=1024, description=_BYTES)
    max_readers: int = Field(_RUNS.max_readers, ge=1, description=_COUNT)
    park_after_s: float = Field(_RUNS.park_after_s, ge=0, description=f"{_GRACE} (0: never)")
    run_ttl_s: float = Field(_RUNS.run_ttl_s, ge=0, description=f"{_GRACE} (0: never)")
    compact_after_s: float = Field(_RUNS.compact_after_s, ge=0, description=f"{_GRACE} (0: never)")
    retention_interval_s: float = Field(_RUNS.retention_interval_s, gt=0, description=_SECONDS)
    max_dead_letters: int = Field(_RUNS.max_dead_letters, ge=1, description=_COUNT)
    dead_letter_ttl_s: float = Field(_RUNS.dead_letter_ttl_s, ge=0, description=f"{_GRACE} (0: never)")
    max_runs_per_user: int = Field(_RUNS.max_runs_per_user, ge=0, description=_OR_NONE)
    beat_inputs: int = Field(_RUNS.beat_inputs, ge=1, description=_COUNT)
    tail_events: int = Field(_RUNS.tail_events, ge=1, description=_COUNT)
    tail_bytes: int = Field(_RUNS.tail_bytes, ge=1024, description=_BYTES)
    cancel_grace_s: float = Field(_RUNS.cancel_grace_s, ge=0, description=_GRACE)
    drain_grace_s: float = Field(_RUNS.drain_grace_s, ge=0, description=_GRACE)
    max_pending_corrections: int = Field(_RUNS.max_pending_corrections, ge=1, description=_COUNT)
    max_recoveries: int = Field(_RUNS.max_recoveries, ge=1, description=_COUNT)
    run_deadline_s: float = Field(_RUNS.run_deadline_s, ge=0, description=f"{_GRACE} (0: no limit)")
    app_changed_after_s: float = Field(_RUNS.app_changed_after_s, ge=0, description=_GRACE)
    lease_ms: int = Field(_RUNS.lease_ms, ge=1000, description="a number of milliseconds, at least 1000")
    recover_delay_s: float = Field(_RUNS.recover_delay_s, gt=0, description=_SECONDS)
    recover_max_delay_s: float = Field(_RUNS.recover_max_delay_s, gt=0, description=_SECONDS)
    max_thread_history: int = Field(_RUNS.max_thread_history, ge=0, le=50, description="a whole number, 0 to 50")
    max_live_runs: int = Field(_RUNS.max_live_runs, ge=1, description=_COUNT)

    # -- what it tells others (see outbound.options.WebhookOptions)
    webhook_url: _List = Field((), description="URLs such as https://example.org/hooks, separated by commas")
    webhook_secret: Annotated[SecretStr | None, _Optional] = Field(
        None, description="whsec_ and base64 (`openssl rand -base64 32`), or any other text"
    )
    webhook_events: Annotated[_List, AfterValidator(_webhook_events)] = Field(
        (), description=f"of {', '.join(_WEBHOOKS.events)}, separated by commas (none: all)"
    )
    webhook_timeout_s: float = Field(_WEBHOOKS.timeout_s, gt=0, description=_SECONDS)
    webhook_max_age_s: float = Field(_WEBHOOKS.max_age_s, ge=0, description=_GRACE)
    webhook_allow_private: bool = Field(default=_WEBHOOKS.allow_private, description="true or false")
    webhooks_in_flight: int = Field(_WEBHOOKS.in_flight, ge=1, description=_COUNT)

    # -- what it says of itself
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="debug, info, warning or error"
    )
    log_format: Literal["text", "json"] = Field("text", description="text or json")

    @property
    def store_url(self) -> str:
        """`store` with the synchronous setting in it."""
        if self.sqlite_synchronous == "full" and self.store.startswith("sqlite:") and "?" not in self.store:
            return f"{self.store}?synchronous=full"
        return self.store

    def limits(self) -> Limits:
        """What the run layer is held to."""
        return Limits(**{name: getattr(self, name) for name in Limits.__struct_fields__})

    def pace(self) -> Pace:
        """How runs share a model that is short of room."""
        return Pace(max_wait_s=self.model_max_wait_s, spacing_s=self.model_retry_spacing_s)

    def webhooks(self) -> WebhookOptions:
        """What webhooks are held to. Raises `BadSettings` for settings that do not go together."""
        secret = self.webhook_secret.get_secret_value() if self.webhook_secret is not None else None
        if self.webhook_url and secret is None:
            raise BadSettings(
                "MIDSTREAM_WEBHOOK_URL: webhooks are signed, so set MIDSTREAM_WEBHOOK_SECRET too "
                "(whsec_ and what `openssl rand -base64 32` prints)"
            )
        for url in self.webhook_url:
            if (wrong := wrong_with(url, allow_private=self.webhook_allow_private)) is not None:
                raise BadSettings(f"MIDSTREAM_WEBHOOK_URL: {wrong}")
        try:
            key_of(secret or "")
        except ValueError as error:
            raise BadSettings(f"MIDSTREAM_WEBHOOK_SECRET: {error}") from None
        return WebhookOptions(
            urls=self.webhook_url,
            secret=secret,
            events=self.webhook_events or _WEBHOOKS.events,
            timeout_s=self.webhook_timeout_s,
            max_age_s=self.webhook_max_age_s,
            allow_private=self.webhook_allow_private,
            in_flight=self.webhooks_in_flight,
        )

    def gateway_options(self, *, server: str) -> GatewayOptions:
        """What connections are held to. `server` is how the server names itself to clients."""
        renamed: dict[str, Any] = {"max_runs": self.max_runs_per_connection, "server": server}
        same = {name: getattr(self, name) for name in GatewayOptions.__struct_fields__ if name not in renamed}
        return GatewayOptions(**renamed, **same)


def load_settings(**given: Any) -> Settings:
    """The settings of this environment; what is `given` and not None wins over it. Raises `BadSettings`."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise BadSettings(_explained(error, set(given))) from None


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A sentence for each `MIDSTREAM_` variable that is no setting, with the nearest that is one."""
    known = _variables() | OTHER_VARIABLES
    return [
        f"{name} is no setting of this server{_nearest(name.upper())}"
        for name in sorted(environment)
        # Environment names are compared without case, as they are read.
        if name.upper().startswith(PREFIX) and name.upper() not in known
    ]


def _variables() -> set[str]:
    return {PREFIX + name.upper() for name in Settings.model_fields}


def _nearest(variable: str) -> str:
    # Without the prefix, which makes all of them alike.
    names = sorted(name.removeprefix(PREFIX) for name in _variables())
    close = difflib.get_close_matches(variable.removeprefix(PREFIX), names, n=1)
    return f"; do you mean {PREFIX}{close[0]}?" if close else ""


def _explained(error: ValidationError, given: set[str]) -> str:
    lines = []
    for wrong in error.errors(include_url=False, include_input=False, include_context=False):
        name = str(wrong["loc"][0]) if wrong["loc"] else ""
        field = Settings.model_fields.get(name)
        if field is None:
            lines.append(f"{name} is no setting{_nearest(PREFIX + name.upper())}")
            continue
        source = f"--{name.replace('_', '-')}" if name in given else PREFIX + name.upper()
        text = wrong["msg"].removeprefix("Value error, ")
        lines.append(f"{source}: {text[:1].lower()}{text[1:]}. It takes {field.description}")
    return lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} settings are wrong:", *lines])
