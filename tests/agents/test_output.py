"""Typed results: what the model is told of the type, and what of its answers is taken as one."""

import datetime as dt
import enum
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.agents.json_answer import MAX_PLACES, values_in
from midstream.agents.output import BadOutput, Output
from midstream.agents.tools.signature import BadTool
from midstream.agents.tools.validate import check_value


class Offer(msgspec.Struct):
    name: str
    price: Annotated[float, msgspec.Meta(ge=0)]
    tags: list[str] = []


@dataclass
class Point:
    x: int
    y: int = 0


class Named(TypedDict):
    name: str


class Colour(enum.Enum):
    RED = "red"


class Booking(pydantic.BaseModel):
    day: dt.date
    seats: int
    inner: list["Seat"] = []


class Seat(pydantic.BaseModel):
    row: int


@dataclass
class Journey:
    first: Seat
    others: dict[str, Booking]


TYPES: list[tuple[Any, Any, Any]] = [
    (Offer, {"name": "a", "price": 1.5}, Offer(name="a", price=1.5)),
    (Point, {"x": 1}, Point(x=1)),
    (Named, {"name": "a"}, {"name": "a"}),
    (list[int], [1, 2], [1, 2]),
    (dict[str, Point], {"a": {"x": 1}}, {"a": Point(x=1)}),
    (Literal["yes", "no"], "yes", "yes"),
    (Colour, "red", Colour.RED),
    (int | None, None, None),
    (Booking, {"day": "2026-06-12", "seats": 2}, Booking(day=dt.date(2026, 6, 12), seats=2)),
    (
        list[Booking],
        [{"day": "2026-06-12", "seats": 2, "inner": [{"row": 1}]}],
        [Booking(day=dt.date(2026, 6, 12), seats=2, inner=[Seat(row=1)])],
    ),
    (Journey, {"first": {"row": 1}, "others": {}}, Journey(first=Seat(row=1), others={})),
]


@pytest.mark.parametrize(("type_", "value", "typed"), TYPES, ids=str)
@pytest.mark.parametrize(
    "form", ["{}", "```json\n{}\n```", "Here it is:\n\n```\n{}\n```\nAnything else?"], ids=["plain", "fenced", "prose"]
)
def test_an_answer_is_read_as_the_type(type_: Any, value: Any, typed: Any, form: str):
    output = Output(type_)
    assert output.read(form.replace("{}", json.dumps(value))) == typed
    assert check_value(output.schema, value) == []
    plain = output.plain(typed)
    assert check_value(output.schema, plain) == []
    assert json.loads(json.dumps(plain)) == plain
    assert output.read(json.dumps(plain)) == typed


def test_an_object_amid_prose_without_a_fence():
    text = 'I compared [3] shops {see below}. {"name": "a", "price": 2} is the best one, not {"name": "b"}.'
    assert Output(Offer).read(text) == Offer(name="a", price=2)


def test_the_object_that_was_meant_may_be_inside_another():
    assert Output(Offer).read('{"answer": {"name": "a", "price": 2}}') == Offer(name="a", price=2)


@pytest.mark.parametrize(
    ("type_", "answer", "said"),
    [
        (Offer, '{"name": "a", "price": "2"}', "price"),
        (Offer, '{"name": "a", "price": -1}', ">= 0"),
        (Offer, '{"name": "a"}', "price"),
        (Offer, "I do not know.", "no JSON"),
        (Offer, '{"name": "a", "pri', "no JSON"),
        (Point, '{"x": 1.5}', "int"),
        (list[int], "[1, true]", "int"),
        (Literal["yes", "no"], '"perhaps"', "perhaps"),
        (Booking, '{"day": "2026-06-12", "seats": "2"}', "seats"),
        (Booking, '{"day": "soon", "seats": "2"}', "day"),
        (Booking, '{"day": "2026-06-12", "seats": 2, "inner": [{"row": "x"}]}', "inner/0/row"),
    ],
)
def test_what_does_not_fit_is_refused_with_words_for_the_model(type_: Any, answer: str, said: str):
    with pytest.raises(BadOutput) as refused:
        Output(type_).read(answer)
    assert said in refused.value.text


def test_a_word_of_a_choice_needs_no_quotes_and_a_text_is_a_text():
    assert Output(Literal["yes", "no"]).read(" yes\n") == "yes"
    assert Output(str).read("{not json") == "{not json"
    assert Output(str).instructions == ""


def test_what_is_wrong_with_a_model_inside_another_type_is_said():
    with pytest.raises(BadOutput, match="inner/0/row: Input should be a valid integer"):
        Output(list[Booking]).read('[{"day": "2026-06-12", "seats": 2, "inner": [{"row": "a"}]}]')


def test_the_model_is_told_the_schema():
    assert '"price"' in Output(Offer).instructions


@pytest.mark.parametrize("type_", [object(), set[complex], lambda: 1])
def test_a_type_that_json_cannot_be_is_refused_where_it_is_declared(type_: Any):
    with pytest.raises(BadTool, match="output="):
        Output(type_)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(value=st.dictionaries(st.text(max_size=4), JSON, max_size=4), before=st.text(max_size=20))
def test_an_object_is_found_behind_any_prose(value: dict[str, Any], before: str):
    before = before.replace("{", "(").replace("[", "(")
    assert value in list(values_in(f"{before}\n{json.dumps(value)}\nDone."))


@given(text=st.text(alphabet='{}[]":,a1\\ \n`', max_size=60))
def test_no_text_breaks_the_search(text: str):
    for value in values_in(text):
        json.dumps(value, allow_nan=False)


@pytest.mark.parametrize("hostile", ["{" * 100_000, '{"a":' * 100_000, "[" * 999 + '"' + "x" * 900_000, "NaN", "[NaN]"])
def test_a_hostile_text_is_given_up_soon(hostile: str):
    assert list(values_in(hostile)) == []


def test_a_value_behind_too_many_beginnings_is_not_looked_for():
    assert list(values_in("{ " * MAX_PLACES + '{"a": 1}')) == []
    assert list(values_in("{ " * (MAX_PLACES - 1) + '{"a": 1}')) == [{"a": 1}]
