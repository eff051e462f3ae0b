"""Our own implementation against the language-neutral cases (protocol/conformance/README.md)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from midstream_protocol import (
    EVENTS,
    TERMINAL_TYPES,
    ProtocolError,
    decode_command,
    decode_command_msgpack,
    decode_event,
    encode_command,
    fold,
    fold_all,
    json_to_msgpack,
    parse_json,
    parse_msgpack,
    verify,
    view_from_builtins,
    view_to_builtins,
)

HOME = Path(__file__).parents[2] / "protocol" / "conformance"


def _load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _cases(file: str) -> list[Any]:
    return [pytest.param(case, id=case["name"].replace(" ", "_")) for case in _load(HOME / file)["cases"]]


FOLDS = [pytest.param(_load(path), id=path.stem) for path in sorted((HOME / "fold").glob("*.json"))]


def _events(case: Any) -> list[Any]:
    return [decode_event(json.dumps(event)) for event in case["events"]]


@pytest.mark.parametrize("case", FOLDS)
def test_fold_makes_the_view_at_every_seq(case: Any) -> None:
    view = None
    for event in _events(case):
        view = fold(view, event, epoch=case.get("epoch"))
        assert view_to_builtins(view) == case["views"][str(view.cursor.seq)]


@pytest.mark.parametrize("case", FOLDS)
def test_a_snapshot_anywhere_leads_to_the_same_view(case: Any) -> None:
    events = _events(case)
    whole = fold_all(events, epoch=case.get("epoch"))
    assert whole is not None
    assert view_to_builtins(whole) == case["views"][str(whole.cursor.seq)]
    for snapshot in case["views"].values():
        assert fold_all(events, view_from_builtins(snapshot)) == whole


def test_the_fold_cases_cover_every_event_type() -> None:
    seen = {event["type"] for case in FOLDS for event in case.values[0]["events"]}
    assert set(EVENTS) <= seen


def test_the_recorded_views_are_fresh() -> None:
    checked = subprocess.run(
        [sys.executable, HOME / "record.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("case", _cases("order/order.json"))
def test_order(case: Any) -> None:
    problems = verify(_events(case), ended=case.get("ended", True))
    assert [int(problem.split("seq ")[1].split(":")[0].split(" ")[0]) for problem in problems] == case["wrong_at"]


# "unknown" is about what no server sends.
@pytest.mark.parametrize("case", [case for case in FOLDS if case.id != "unknown"])
def test_the_fold_cases_are_in_order(case: Any) -> None:
    events = _events(case)
    first_time = [event for at, event in enumerate(events) if all(event.seq > seen.seq for seen in events[:at])]
    assert verify(first_time, ended=events[-1].type in TERMINAL_TYPES) == []


def _text(case: Any) -> bytes:
    if "hex" in case:
        return bytes.fromhex(case["hex"])
    return (case["text"] if "text" in case else json.dumps(case["frame"])).encode()


@pytest.mark.parametrize("case", _cases("decode/commands.json"))
def test_decode(case: Any) -> None:
    if "error" in case:
        with pytest.raises(ProtocolError) as refused:
            decode_command(_text(case), **case.get("limits", {}))
        assert refused.value.code == case["error"]
        assert refused.value.command_id == case.get("command_id")
        return
    command = decode_command(_text(case))
    written = json.loads(encode_command(command))
    assert written.pop("v") == 1
    assert written == case["command"]
    assert decode_command(encode_command(command).decode()) == command


@pytest.mark.parametrize("case", [case for case in _cases("decode/commands.json") if "frame" in case.values[0]])
def test_msgpack_frames_mean_the_same(case: Any) -> None:
    packed = json_to_msgpack(json.dumps(case["frame"]).encode())
    if "error" in case:
        with pytest.raises(ProtocolError) as refused:
            decode_command_msgpack(packed, **case.get("limits", {}))
        assert (refused.value.code, refused.value.command_id) == (case["error"], case.get("command_id"))
    else:
        assert decode_command_msgpack(packed) == decode_command(_text(case))


@pytest.mark.parametrize("case", _cases("decode/msgpack.json"))
def test_msgpack(case: Any) -> None:
    raw = bytes.fromhex(case["hex"])
    if "error" in case:
        with pytest.raises(ProtocolError) as refused:
            parse_msgpack(raw)
        assert refused.value.code == case["error"]
        return
    value = parse_msgpack(raw)
    assert value == case["value"]
    # `1 == 1.0 == True` in Python; the wire tells them apart.
    assert json.dumps(value) == json.dumps(parse_json(json.dumps(case["value"])))
