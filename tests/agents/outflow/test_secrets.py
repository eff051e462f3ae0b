"""What looks like a secret, and what stays because it does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.agents.outflow.exact import HIDDEN, Exact
from midstream.agents.outflow.known import Secrets, known_secrets
from midstream.agents.outflow.secrets import looks_secret, scrubbed, scrubbed_text, secret_name
from midstream_protocol.ids import new_id

# Put together here, so that no scanner takes this file for a leak.
JWT = "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
RANDOM = "wJalrXUtnFEMI7K7MDENGbPxRfiCYzEXA3"


@pytest.mark.parametrize(
    "word",
    [
        "sk-" + "ant-api03-abcdefABCDEF123456",
        "sk-" + "proj-abcdefgh12345678",
        "pk_" + "live_abcdefghijklmnop1234",
        "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a",
        "github_pat_" + "11ABCDEFG0abcdefghijkl",
        "glpat-" + "abcdefgh12345678",
        "xoxb-" + "123456789012-abcdef",
        "AKIA" + "IOSFODNN7EXAMPLE",
        "AIza" + "SyA-1234567890abcdefghijklmnopqrstu",
        JWT,
        RANDOM,
        "canary-7f3a",
        "CANARY_SYSTEM_PROMPT",
        "tool-canary-args.",
        "my-secret-42",
        "secret1",
    ],
)
def test_secrets(word):
    assert looks_secret(word)
    assert HIDDEN in scrubbed_text(f"see {word}, there")
    assert scrubbed_text(f"see {word}, there").startswith("see ")
    assert scrubbed_text(f"see {word}, there").endswith(", there")


@pytest.mark.parametrize(
    "word",
    [
        *("2024-01-01T00:00:00.000Z", "1.2.3-beta.4+build5", "550e8400-e29b-41d4-a716-446655440000", "12,345,678.90"),
        *("da39a3ee5e6b4b0d3255bfef95601890afd80709", "sha256:" + "ab12" * 16, "src/midstream/agents/secret1.py"),
        *("https://example.com/A1b2C3d4E5f6G7h8I9j0K1l2M3", "canary", "Canaries", "secret", "secrets", "secretary"),
        *("canary-deployment", "test_canary_build", "client_secret", "AWS_SECRET_ACCESS_KEY", "secretKeyRef"),
        *("Conversation2024SummaryReport15", "MyVeryLongClassName2FactoryBean", "claude-sonnet-4-5-20250929"),
        *("canary.yaml", "test_tools_are_hidden_from_some", "abcdefghijklmnopqrstuvwxyz0123456789", "sk-", "eyJ"),
    ],
)
def test_ordinary_words(word):
    assert not looks_secret(word)
    assert scrubbed_text(f"see {word} there") == f"see {word} there"


@given(st.sampled_from(["run", "th", "call", "msg", "step", "appr", "err", "exec", "obj"]))
def test_our_own_ids_are_no_secrets(prefix):
    assert not looks_secret(new_id(prefix))


@pytest.mark.parametrize(
    "name",
    [
        *("password", "DB_PASSWORD", "passwd", "api_key", "apiKey", "X-Api-Key", "API_KEY", "token", "authToken"),
        *("accessToken", "Authorization", "Set-Cookie", "private_key", "privateKey", "client_secret", "credentials"),
        *("AWS_SECRET_ACCESS_KEY", "ANTHROPIC_API_KEY", "MIDSTREAM_TOKEN", "secrets", "token2"),
    ],
)
def test_names_of_secrets(name):
    assert secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("tokens", "max_tokens", "total_tokens", "token_count", "next_page_token", "eos_token", "key", "keys"),
        *("primary_key", "keyboard", "monkey", "author", "secretary", "path", "", "7", "passwordless", "secret_santa"),
    ],
)
def test_names_of_ordinary_things(name):
    assert not secret_name(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://u:pw1234@h/db", "postgres://u:[hidden]@h/db"),
        ("Authorization: Bearer abc123def456", "Authorization: Bearer [hidden]"),
        ("password=hunter2 x", "password=[hidden] x"),
        ("?key=5&token=abc&x=1", "?key=5&token=[hidden]&x=1"),
        ('{"api_key": "abc", "n": 1}', '{"api_key": "[hidden]", "n": 1}'),
        ("a -----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY----- b", "a [hidden] b"),
        ("-----BEGIN PRIVATE KEY-----\ncut off", "[hidden]"),
        ("password: must be long", "password: must be long"),
        ("token = next(tokens)", "token = next(tokens)"),
        ("the basic information, a bearer of news", "the basic information, a bearer of news"),
        ("max_tokens=4096", "max_tokens=4096"),
    ],
)
def test_texts(text, shown):
    assert scrubbed_text(text) == shown


def test_values():
    value = {"a": {"token": "x", "b": ["ok", "canary-7f3a"]}, "max_tokens": 5, "password": None, "secret": True}
    assert scrubbed(value) == {
        "a": {"token": HIDDEN, "b": ["ok", HIDDEN]},
        "max_tokens": 5,
        "password": None,
        "secret": True,
    }


@given(st.text(max_size=200))
def test_scrubbing_twice_is_scrubbing_once(text):
    once = scrubbed_text(text)
    assert scrubbed_text(once) == once


@given(st.sets(st.text(alphabet="ab-", min_size=1, max_size=5), max_size=6), st.text(alphabet="ab-c", max_size=40))
def test_given_texts_are_found_in_a_stream_as_in_one_piece(texts, text):
    exact = Exact(texts)
    whole = exact.replaced(text)
    for size in (1, 2, 3):
        shown = held = ""
        for at in range(0, len(text), size):
            now, held = exact.scan(held + text[at : at + size])
            shown += now
        assert shown + exact.replaced(held) == whole
    assert not any(each in part for each in texts for part in whole.split(HIDDEN))


def test_what_a_run_knows_at_its_start():
    secrets = known_secrets(
        texts=("blue-horse",),
        system=[
            "You are the desk's own assistant and answer in one line.\n",
            'Always say "Thank you for calling the desk, have a nice day".',
            "Code 4f3c2a1b9d8e7f60, id 550e8400-e29b-41d4-a716-446655440000, CANARY-7.",
            "The launch code is zebra-77-quartz. Secret word: otter_2x. The code is documented in section-12-b.",
        ],
        environ={
            "SOME_API_KEY": "from-the-environment",
            "MY_TOKEN": "short",
            "DB_PASSWORD": "postgres",
            "HOME": "/home/somebody",
        },
    )
    for known in (
        *("blue-horse", "from-the-environment", "4f3c2a1b9d8e7f60", "550e8400-e29b-41d4-a716-446655440000", "CANARY-7"),
        *("zebra-77-quartz", "otter_2x"),
        "You are the desk's own assistant and answer in one line.",
    ):
        assert secrets.told(f"so: {known}!") == f"so: {HIDDEN}!"
    for told in (
        "Thank you for calling the desk, have a nice day",
        "short",
        "postgres",
        "/home/somebody",
        "documented",
        "section-12-b",
    ):
        assert secrets.told(told) == told


def test_what_a_run_meets():
    secrets = Secrets()
    secrets.meet({"note": "plain text", "password": "correct horse", "pin": "longer-than-8", "n": [1, None]}, ["pin"])
    secrets.meet(f"the key is {RANDOM}, of the 2024-01-01 kind")
    hidden = secrets.told({"say": ["plain text", "correct horse", "longer-than-8", f"={RANDOM}=", "2024-01-01"]})
    assert hidden == {"say": ["plain text", HIDDEN, HIDDEN, f"={HIDDEN}=", "2024-01-01"]}
    secrets.meet({"password": "short", "token": "ordinary"})
    assert secrets.told("short ordinary") == "short ordinary", "these are found in ordinary words"
