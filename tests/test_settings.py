"""Settings: where they come from, what they take, and what is said when they are wrong."""

import os

import pytest

from midstream.gateway.options import GatewayOptions
from midstream.runs import Limits
from midstream.settings import BadSettings, Settings, load_settings, unknown_variables


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("MIDSTREAM_")]:
        monkeypatch.delenv(name)


def test_nothing_set_is_a_server_on_loopback_with_a_file() -> None:
    settings = load_settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8484)
    assert settings.store_url == "sqlite:///.midstream/midstream.db"
    assert settings.token is None
    assert settings.model is None
    assert settings.limits() == Limits()
    assert settings.gateway_options(server="midstream") == GatewayOptions()


@pytest.mark.parametrize("name", Limits.__struct_fields__)
def test_every_limit_of_the_run_layer_is_a_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # 50 is within the bounds of every one of them, and the default of none that is not 50 itself.
    value = 5000 if name.endswith(("_bytes", "_ms")) else 49
    monkeypatch.setenv(f"MIDSTREAM_{name.upper()}", str(value))
    assert getattr(load_settings().limits(), name) == value


@pytest.mark.parametrize("name", [n for n in GatewayOptions.__struct_fields__ if n != "server"])
def test_every_option_of_the_gateway_is_a_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = {"max_runs": "max_runs_per_connection"}.get(name, name).upper()
    value, text = (False, "off") if name == "console" else (2048, "2048")
    monkeypatch.setenv(f"MIDSTREAM_{variable}", text)
    assert getattr(load_settings().gateway_options(server="s"), name) == value


def test_arguments_win_over_the_environment_and_none_is_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDSTREAM_PORT", "9000")
    monkeypatch.setenv("MIDSTREAM_HOST", "0.0.0.0")
    settings = load_settings(port=9001, host=None)
    assert (settings.port, settings.host) == (9001, "0.0.0.0")


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDSTREAM_ALLOWED_HOSTS", "a.example, b.example,")
    monkeypatch.setenv("MIDSTREAM_ALLOWED_ORIGINS", "https://a.example,http://localhost:5173")
    settings = load_settings()
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert settings.allowed_origins == ("https://a.example", "http://localhost:5173")
    assert load_settings(allowed_hosts=("c.example",)).allowed_hosts == ("c.example",)


def test_an_empty_token_is_no_token_and_a_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDSTREAM_TOKEN", "")
    assert load_settings().token is None
    monkeypatch.setenv("MIDSTREAM_TOKEN", "s3cret")
    settings = load_settings()
    assert settings.token is not None
    assert settings.token.get_secret_value() == "s3cret"
    assert "s3cret" not in f"{settings!r} {settings}"


def test_an_empty_variable_is_as_if_it_was_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(f"MIDSTREAM_{name.upper()}", "")
    assert load_settings() == Settings.model_construct()


def test_a_log_level_may_be_in_capitals() -> None:
    assert load_settings(log_level="DEBUG").log_level == "debug"


def test_the_synchronous_setting_goes_into_the_stores_address() -> None:
    assert load_settings(sqlite_synchronous="full").store_url.endswith("?synchronous=full")
    assert load_settings(sqlite_synchronous="full", store="memory:").store_url == "memory:"


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("PORT", "eighty", "a port, 0 to 65535"),
        ("PORT", "70000", "a port, 0 to 65535"),
        ("HEARTBEAT_S", "0", "a number of seconds above 0"),
        ("HEARTBEAT_S", "soon", "a number of seconds above 0"),
        ("MAX_FRAME_BYTES", "10", "a number of bytes, at least 1024"),
        ("MAX_CONNECTIONS", "0", "a whole number, at least 1"),
        ("MAX_CONNECTIONS", "1.5", "a whole number, at least 1"),
        ("STORE", "postgres://x", "memory: or sqlite:///PATH"),
        ("STORE", "sqlite", "memory: or sqlite:///PATH"),
        ("SQLITE_SYNCHRONOUS", "off", "normal, or full"),
        ("ALLOWED_ORIGINS", "a.example", "origins such as https://app.example.org"),
        ("ALLOWED_HOSTS", "http://a.example", "host names"),
        ("LOG_LEVEL", "loud", "debug, info, warning or error"),
        ("LOCAL_MODEL", "perhaps", "true or false"),
        ("CANCEL_GRACE_S", "-1", "a number of seconds, 0 or more"),
    ],
)
def test_a_wrong_value_names_its_variable_and_what_it_takes(
    name: str, value: str, takes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"MIDSTREAM_{name}", value)
    with pytest.raises(BadSettings) as wrong:
        load_settings()
    assert f"MIDSTREAM_{name}: " in str(wrong.value)
    assert takes in str(wrong.value)


def test_all_that_is_wrong_is_said_at_once_and_an_argument_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDSTREAM_HEARTBEAT_S", "x")
    with pytest.raises(BadSettings) as wrong:
        load_settings(port=-1)
    first, *lines = str(wrong.value).split("\n")
    assert first == "2 settings are wrong:"
    assert sorted(line.partition(": ")[0] for line in lines) == ["  --port", "  MIDSTREAM_HEARTBEAT_S"]


def test_an_argument_that_is_no_setting() -> None:
    with pytest.raises(BadSettings, match="prot is no setting; do you mean MIDSTREAM_PORT"):
        load_settings(prot=1)


def test_no_value_is_repeated_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDSTREAM_PORT", "canary")
    with pytest.raises(BadSettings) as wrong:
        load_settings()
    assert "canary" not in str(wrong.value)


def test_variables_that_are_no_setting_are_named_with_the_nearest() -> None:
    environment = {
        "MIDSTREAM_PROT": "1",
        "MIDSTREAM_URL": "u",
        "MIDSTREAM_PORT": "1",
        "midstream_host": "h",
        "PATH": "p",
        "MIDSTREAM_QQQQ": "1",
    }
    assert unknown_variables(environment) == [
        "MIDSTREAM_PROT is no setting of this server; do you mean MIDSTREAM_PORT?",
        "MIDSTREAM_QQQQ is no setting of this server",
    ]


def test_every_setting_says_what_it_takes() -> None:
    assert all(field.description for field in Settings.model_fields.values())
