"""What of a model's text is shown, wherever the stream is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.agents.outflow.contract import Outflow
from midstream.agents.outflow.known import Secrets
from midstream.agents.outflow.leakage import TextFilter, text_filter_for
from midstream.agents.outflow.raw_calls import MAX_HELD_CHARS
from midstream.agents.outflow.secrets import MAX_WORD_CHARS

KEY = "sk-ant-api03-" + "abcDEF123456" * 2
OUTFLOW = Outflow(secrets=("blue-horse", "blue", "horseshoe"))
made = text_filter_for(OUTFLOW, ["Answer as told. CANARY-SYSTEM-7f3a"], tools=lambda: ["search", "edit_file"])

CALL = '{"name": "search", "arguments": {"q": "a}\\"b", "deep": [{"x": 1}]}}'

HIDDEN = [
    ("a <tool_call>{}</tool_call> b", "a  b"),
    ("a <TOOL x='>'>q</Tool>b", "a b"),
    ("a <tool>1<tool>2</tool>3</tool>b", "a b"),
    ("a <tool>1<tool/>2</tool>b", "a b"),
    ("a <tool_use>never closed", "a "),
    ('a <invoke name="x', "a "),
    ("a <tool_ca", "a "),
    ("a <tool ", "a "),
    ("a <tool_call{}</tool_call>b", "a b"),
    ("now<tool>x</tool>then", "nowthen"),
    ('<function_calls><invoke name="s"><parameter name="q">1</parameter></invoke></function_calls>ok', "ok"),
    ("<function=search>{}</function>ok", "ok"),
    ("<function_calls>\n<invoke>x</invoke></function_calls>ok", "ok"),
    ("<thinking>hm</thinking>Yes", "Yes"),
    ("<think>\n\n</think>Yes", "Yes"),
    ("hm</think>Yes", "hmYes"),
    ("<reasoning effort=high>hm</reasoning>Yes", "Yes"),
    ("<scratchpad>1<think>2</think>3</scratchpad>Yes", "Yes"),
    ("<system_prompt>You are</system_prompt>Yes", "Yes"),
    ("<system>You are</system>Yes", "Yes"),
    ("<tool_results><result>x</result></tool_results>Yes", "Yes"),
    ("Here <tool_call/> it is", "Here  it is"),
    ("<|python_tag|>x.y()<|eom_id|>z", "z"),
    ("<|im_start|>system\nYou are<|im_end|>Yes", "Yes"),
    ("<|im_start|>assistant\nYes<|im_end|>", "Yes"),
    ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Yes<|return|>", "Yes"),
    ("<|channel|>commentary to=functions.x<|message|>{}<|call|>Yes", "Yes"),
    ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>ok", "ok"),
    ("ok<|tool_call_begin|>never closed", "ok"),
    ("ok<|pyth", "ok"),
    ('ok [TOOL_CALLS] [{"name":"x"}]', "ok "),
    ("[THINK]hm[/THINK]Yes", "Yes"),
    ("<<SYS>>You are<</SYS>>Yes", "Yes"),
    (f"go {CALL} on", "go  on"),
    (f"[{CALL}, {CALL}]!", "!"),
    ("{'tool': 'search', 'args': {'q': 1}}!", "!"),
    ('{"tool": "search"}!', "!"),
    ('{"tool_calls": [{"id": "call_1"}]}!', "!"),
    ('{"type":"tool_use","id":"toolu_1","name":"other","input":{}}!', "!"),
    ('{"id":"call_1","type":"function","function":{"name":"other","arguments":"{}"}}!', "!"),
    ('{"name": "search", "argum', ""),
    (f"```json\n{CALL}\n```\nok", "\nok"),
    (f"```json\n{CALL}\n{CALL}\n```\nok", "\nok"),
    ("```tool_code\nsearch()\n```ok", "ok"),
    (f"the key {KEY}, yes", "the key [hidden], yes"),
    (f"({KEY})", "([hidden])"),
    ("it is CANARY-SYSTEM-7f3a.", "it is [hidden]."),
    ("X-CANARY-42 and secret-7 too", "X-[hidden] and [hidden] too"),
    ("blue-horse", "[hidden]"),
    ("blue-horses", "[hidden]s"),
    ("blue-hor", "[hidden]-hor"),
    ("bl<tool>x</tool>ue!", "[hidden]!"),
    ("<seed:think>hm</seed:think>Yes", "Yes"),
    ("<minimax:tool_call>{}</minimax:tool_call>Yes", "Yes"),
    ("<start_of_turn>system\nYou are<end_of_turn>\n<start_of_turn>model\nYes<end_of_turn>", "\nYes"),
    ("<|START_THINKING|>hm<|END_THINKING|>Yes", "Yes"),
    ("<|assistant_tool|>{}<|end|>Yes", "Yes"),
    ("\u25c1think\u25b7hm\u25c1/think\u25b7Yes", "Yes"),
    ("f\n<arg_key>q</arg_key><arg_value>x</arg_value>ok", "f\nok"),
    ("```tool\nsearch()\n```ok", "ok"),
    ("a <tool\u200b_call>1</tool\u200b_call>b", "a b"),
    ("a <\ufefftool_call>1</tool_call>b", "a b"),
    ("a \uff1ctool_call\uff1e1\uff1c/tool_call\uff1eb", "a b"),
    ("a <t\u043eol_call>1</t\u043eol_call>b", "a b"),
    ("Hm. <think> is it so?</think>Yes", "Hm. Yes"),
    ('{"thought": "I \\"should", "name": "search", "arguments": {}}!', "!"),
    ('{"reasoning": "so", "explanation": "", "tool": "search", "args": {}}!', "!"),
]

SHOWN = [
    "a<b and c>d, 1 < 2 > 0",
    "<table><tr><td>1</td></tr></table>",
    "<toolbar> <toolbox> <toolkit/> <systems> <thinker>",
    "a List<Tool>, a Map<String, Tool>, a Promise<ToolResult>",
    "if (x<system/2 && y>3)",
    "Write `<tool_call>` and `<|im_end|>` and `[TOOL_CALLS]`.",
    "f <| g <|> h, a << b, 1 <<3",
    "[TODO] [THIS](x) [1] []",
    '{"name": "Bob", "age": 3}',
    '{"todos": [{"id": 1, "title": "x"}]}',
    '{"id": 7, "type": "order", "name": "Bob"}',
    '[{"action": "buy", "input": "x"}]',
    '```json\n{"a": 1}\n```',
    '```python\nprint({"x": [1]})\n```',
    "`a` ``b`` ```c```",
    "use <tool or hammer to fix it",
    "a <t",
    "a <",
    "``",
    "A canary sang, secretly: canaries, secrets, a canary-deployment, client_secret, sk-",
    "skip the pk_ and the sk_",
    "blu",
    "Models write <thinking> tags around their thoughts, and end them with </thinking>. Then they answer.",
    "The <think> tag: what stands between <think> and </think> is not read, says </think> twice.",
    'It says "<tool_use>" and \u201c<tool_result>\u201d, then stops.',
    'x = <Tool name="a"><Function/></Tool>',
    "fn f(x: Option<tool_call>) -> Result<tool_result, E>; useState<tool_call | null>(null); Vec<tool>",
    "the norm <|x|> of it",
    '{"reason": "late", "status": 4}',
    '{"thought": "so", "name": "Bob"}',
]


@pytest.mark.parametrize(("text", "shown"), HIDDEN)
def test_what_is_not_the_answer_is_left_out_wherever_it_is_cut(text, shown):
    assert splits(text) == {shown}


@pytest.mark.parametrize("text", SHOWN)
def test_what_only_resembles_it_is_shown_wherever_it_is_cut(text):
    assert splits(text) == {text}


def splits(text: str) -> set[str]:
    """What is shown in one piece, in two, and in single characters."""
    pieces = [[text[:at], text[at:]] for at in range(len(text) + 1)]
    return {played(made(), each) for each in [*pieces, list(text)]}


def whole_of(it: TextFilter, text: str) -> str:
    return it.feed(text) + it.end()


def played(it: TextFilter, pieces) -> str:
    return "".join([it.feed(piece) for piece in pieces]) + it.end()


FRAGMENTS = st.sampled_from(
    [
        *"<>/`[]{}\"':|, \nax=-",
        *("<tool", "<tool>", "</tool>", "<tool_call", "</tool_call>", "<think>", "</think>", "<Tool>", "antml:", "```"),
        *("<|", "|>", "<|im_start|>", "system", "assistant", "<|im_end|>", "<|channel|>", "final", "<|python_tag|>"),
        *(
            "[TOOL_CALLS]",
            "[/THINK]",
            "[THINK]",
            "<<SYS>>",
            '{"name": "',
            "search",
            '", "arguments": {',
            "}}",
            '{"tool',
        ),
        *(
            "\u200b",
            "\uff1c",
            "\uff1e",
            "\u043e",
            "<t\u043eol",
            " tag",
            "s ",
            " and ",
            "<start_of_turn>",
            "model",
            "<end_of_turn>",
        ),
        *(
            "\u25c1think\u25b7",
            "\u25c1/think\u25b7",
            '{"thought": "',
            '", "',
            "seed:think",
            "Option<tool_call",
            ">)",
            "</think>",
        ),
        *('{"type": "function"', "```json\n", "```tool_code\n", "blue", "-horse", "shoe", "sk-", "abcdefgh12345678"),
        *("CANARY-", "secret", "42", "eyJ", "AKIA", "ABCDEFGHIJKLMNOP", "\\", "id", "call_", "｜", "▁"),
    ]
)


@given(st.lists(FRAGMENTS, max_size=25), st.data())
def test_every_split_of_every_text_shows_the_same(fragments, data):
    text = "".join(fragments)
    whole = whole_of(made(), text)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert played(made(), pieces) == whole
    assert played(made(), text) == whole


@given(st.lists(FRAGMENTS, max_size=25))
def test_what_was_shown_is_never_taken_back_and_no_secret_is_in_it(fragments):
    text = "".join(fragments)
    it = made()
    shown = ""
    for char in text:
        shown += it.feed(char)
        assert whole_of(made(), text).startswith(shown)
    shown += it.end()
    assert "blue" not in shown
    assert "<tool_call>" not in shown.replace("`<tool_call>`", "")


@given(st.text(alphabet=st.characters(exclude_characters="<{[`", exclude_categories=["Cs"]), max_size=80))
def test_text_without_a_sign_leaves_at_once_and_whole(text):
    it = TextFilter(Secrets().exact, guess=False)
    assert it.feed(text) == text


@pytest.mark.parametrize(
    ("said", "at_once"),
    [
        ("Hello wor", "Hello wor"),
        ("a <", "a "),
        ("a <tax", "a <tax"),
        ("a <to", "a "),
        ("x `", "x "),
        ("x `z", "x `z"),
        ('{"todos', '{"todos'),
        ('{"na', ""),
        ('{"name": "Bob"', '{"name": "Bob"'),
        ("the blue", "the "),
        ("the bl", "the "),
        ("the blow", "the blow"),
        ("a secre", "a "),
        ("a second", "a second"),
        ("the <think> t", "the "),
        ("the <think> tag ", "the <think> tag "),
        ('{"reason": "late", "st', '{"reason": "late", "st'),
    ],
)
def test_only_what_more_text_could_change_is_held(said, at_once):
    assert made().feed(said) == at_once


def test_memory_is_bounded_whatever_comes():
    for opening in (
        '{"name": "search", "arguments": {"q": "',
        "<tool_call>",
        '<tool_call x="',
        KEY,
        '{"args": "',
        "<|tool_call|>",
    ):
        it = made()
        shown = it.feed(opening)
        for _ in range(40):
            shown += it.feed("a" * 1_000)
        held = len(it._markup._held) + len(it._secrets._held) + len(it._secrets._word)
        assert held <= max(MAX_HELD_CHARS, MAX_WORD_CHARS) + 1_000, opening


def test_a_call_longer_than_is_held_is_left_out_all_the_same():
    long = '{"name": "search", "arguments": {"q": "' + "x" * (2 * MAX_HELD_CHARS) + '"}} done'
    assert splits_at(long, 5_000) == {" done"}


def test_a_long_object_that_is_no_call_is_shown():
    long = '{"args": "' + "x y" * MAX_HELD_CHARS + '"} done'
    assert splits_at(long, 5_000) == {long}


def splits_at(text: str, size: int) -> set[str]:
    return {whole_of(made(), text), played(made(), [text[at : at + size] for at in range(0, len(text), size)])}


def test_without_known_tools_the_form_of_a_call_is_enough():
    anything = text_filter_for(Outflow())()
    assert whole_of(anything, '{"name": "anything", "arguments": {}}') == ""


def test_an_app_that_hands_out_keys_can_show_them():
    it = text_filter_for(Outflow(guess=False, secrets=("mine",)))()
    assert whole_of(it, f"{KEY} mine") == f"{KEY} [hidden]"


def test_what_a_run_has_met_since_is_hidden_in_its_next_message():
    secrets = Secrets()
    make = text_filter_for(Outflow(), secrets=secrets)
    before = make()
    secrets.meet({"password": "correct horse", "note": "plain words"})
    assert whole_of(make(), "it is correct horse, in plain words") == "it is [hidden], in plain words"
    assert whole_of(before, "correct horse") == "correct horse", "a message that has begun stays as it began"
