import hashlib
import hmac
import json

import pytest

from midstream_protocol import RunCompleted, Usage, args_digest, canonical, decode_event, event_bytes, terminal_digest

NO_USAGE = Usage(input_tokens=0, output_tokens=0, cached_input_tokens=0, total_tokens=0, by_model={})


def test_canonical_is_rfc_8785():
    # The example of RFC 8785 §3.2.2-3.2.4.
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert canonical(value).decode() == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def test_keys_are_sorted_by_utf_16():
    # RFC 8785 §3.2.3: U+1F600 is a pair that begins with D83D, so it sorts before U+FB33.
    assert list(json.loads(canonical({"\ufb33": 1, "\U0001f600": 2}))) == ["\U0001f600", "\ufb33"]


def test_a_reader_of_the_wire_computes_the_same_terminal_digest():
    ending = RunCompleted(result={"b": 5.0, "a": "é"}, usage=NO_USAGE, digest="")
    digest = terminal_digest(ending)
    assert terminal_digest(RunCompleted(result=ending.result, usage=NO_USAGE, digest=digest)) == digest
    written = event_bytes(
        seq=9, run_id="r", ts="t", payload=RunCompleted(result=ending.result, usage=NO_USAGE, digest=digest)
    )
    payload = json.loads(written)["payload"]
    assert payload.pop("digest") == hashlib.sha256(canonical(payload)).hexdigest()
    assert terminal_digest(decode_event(written).payload) == digest
    assert terminal_digest(RunCompleted(result=1, usage=NO_USAGE, digest="")) != digest


def test_args_digest_is_keyed_and_blind_to_order():
    args = {"b": 1, "a": [1.0]}
    assert args_digest(b"key", args) == args_digest(b"key", {"a": [1], "b": 1})
    assert args_digest(b"key", args) != args_digest(b"other", args)
    assert args_digest(b"key", args) != args_digest(b"key", {"a": [1], "b": "1"})
    assert args_digest(b"key", {}) == hmac.new(b"key", b"{}", hashlib.sha256).hexdigest()


@pytest.mark.parametrize("value", [float("nan"), 2**53])
def test_what_json_cannot_carry_has_no_digest(value):
    with pytest.raises(ValueError):
        canonical({"x": value})
