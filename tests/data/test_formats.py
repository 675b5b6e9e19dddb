"""Every format against what a person reads in the row, and the format found by the columns."""

import pytest

from etude import catalog
from etude.data.detect import detect
from etude.data.records import Completion, Conversation, Message, Pair, Rated, RowError, Text
from etude.data.render import renderer
from etude.errors import DataError
from etude.recipe.data import Render


def user(text, train=None):
    return Message("user", text, train)


def assistant(text, train=None, **extra):
    return Message("assistant", text, train, extra)


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}

# (format, row, record): the rows are those of OpenAI's, LLaMA-Factory's and TRL's documentation.
READ = [
    (
        "messages",
        {"messages": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},  # noqa: E501
        Conversation((Message("system", "Be kind"), user("Hi"), assistant("Hello"))),
    ),
    (
        "messages",
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}, {"role": "user", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]}, {"role": "assistant", "content": "e", "weight": 1}]},  # noqa: E501
        Conversation((user("a"), assistant("b", False), user("cd"), assistant("e", True))),
    ),
    (
        "messages",
        {
            "messages": [
                {"role": "user", "content": "Weather?", "name": "Ann"},
                {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}]},  # noqa: E501
                {"role": "tool", "tool_call_id": "1", "content": "sun"},
                {"role": "assistant", "content": "Sun.", "train": True, "reasoning_content": "because"},
            ],
            "tools": '[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]',
        },
        Conversation(
            (
                Message("user", "Weather?", None, {"name": "Ann"}),
                assistant("", tool_calls=[{"id": "1", **CALL}]),
                Message("tool", "sun", None, {"tool_call_id": "1"}),
                assistant("Sun.", True, reasoning_content="because"),
            ),
            (TOOL,),
        ),
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "system": "Be kind"},
        Conversation((Message("system", "Be kind"), user("Hi"), assistant("Hello"))),
    ),
    (
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": "Weather?"},
                {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Paris"}}'},
                {"from": "observation", "value": "sun"},
                {"from": "gpt", "value": "Sun.", "train": False},
            ],
            "tools": '[{"name": "weather", "parameters": {"type": "object"}}]',
        },
        Conversation((user("Weather?"), assistant("", tool_calls=[CALL]), Message("tool", "sun"), assistant("Sun.", False)), (TOOL,)),
    ),
    (
        "sharegpt",
        {"conversations": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "tools": ""},
        Conversation((user("Hi"), assistant("Hello"))),
    ),
    ("alpaca", {"instruction": "Add", "input": "1 and 2", "output": "3"}, Completion("Add\n1 and 2", "3")),
    ("alpaca", {"instruction": "Add", "input": "", "output": 3, "system": "Be kind"}, Completion("Add", "3", "Be kind")),
    (
        "alpaca",
        {"instruction": "And 3?", "output": "6", "history": [["2 and 2?", "4"]], "system": "Be kind"},
        Conversation((Message("system", "Be kind"), user("2 and 2?"), assistant("4"), user("And 3?"), assistant("6"))),
    ),
    ("prompt-completion", {"prompt": "The sky is", "completion": " blue"}, Completion("The sky is", " blue")),
    (
        "prompt-completion",
        {"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}], "completion": [{"role": "assistant", "content": "d"}]},  # noqa: E501
        Conversation((user("a", False), assistant("b", False), user("c", False), assistant("d"))),
    ),
    (
        "preference",
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"},
        Pair(Completion("Hi", "Hello"), Completion("Hi", "Go away")),
    ),
    (
        "preference",
        {"chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "rejected": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No"}]},  # noqa: E501
        Pair(Conversation((user("Hi", False), assistant("Hello"))), Conversation((user("Hi", False), assistant("No")))),
    ),
    (  # UltraFeedback: the prompt is given and repeated at the head of both answers
        "preference",
        {"prompt": "Hi", "chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "rejected": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No"}]},  # noqa: E501
        Pair(Conversation((user("Hi", False), assistant("Hello"))), Conversation((user("Hi", False), assistant("No")))),
    ),
    (  # LLaMA-Factory: ShareGPT turns, and single messages
        "preference",
        {"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Hello"}, "rejected": {"from": "gpt", "value": "No"}},  # noqa: E501
        Pair(Conversation((user("Hi", False), assistant("Hello"))), Conversation((user("Hi", False), assistant("No")))),
    ),
    (
        "preference",
        {"prompt": [{"role": "user", "content": "Hi"}], "chosen": [{"role": "assistant", "content": "Hello"}], "rejected": [{"role": "assistant", "content": "No"}], "system": "Be kind"},  # noqa: E501
        Pair(
            Conversation((Message("system", "Be kind", False), user("Hi", False), assistant("Hello"))),
            Conversation((Message("system", "Be kind", False), user("Hi", False), assistant("No"))),
        ),
    ),
    ("kto", {"prompt": "Hi", "completion": "Hello", "label": True}, Rated(Completion("Hi", "Hello"), True)),
    ("kto", {"prompt": "Hi", "completion": "No", "label": "False"}, Rated(Completion("Hi", "No"), False)),
    (
        "kto",
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}], "label": False},  # noqa: E501
        Rated(Conversation((user("a", False), assistant("b", False), user("c", False), assistant("d"))), False),
    ),
    ("text", {"text": "Once upon a time"}, Text("Once upon a time")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "record"), READ)
def test_a_row_says_what_a_person_reads_in_it(name, row, record):
    assert catalog.find("format", name)().record(row) == record


@pytest.mark.parametrize(("name", "row", "record"), READ)
def test_its_columns_tell_the_format(name, row, record):
    found = detect([row] * 3, "rows.jsonl")
    assert found.format.kind == name and f"format {name}" in found.reason


WRONG = [
    ("messages", {"messages": "Hi"}, "messages"),
    ("messages", {"messages": []}, "messages"),
    ("messages", {"msgs": []}, "messages"),
    ("messages", {"messages": [{"role": "asistant", "content": "a"}]}, "messages[0].role"),
    ("messages", {"messages": [{"content": "a"}]}, "messages[0].role"),
    ("messages", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ("messages", {"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
    ("messages", {"messages": [{"role": "assistant", "content": "a", "weight": 2}]}, "messages[0].weight"),
    ("messages", {"messages": [{"role": "assistant", "content": "a", "weight": 1, "train": False}]}, "messages[0]"),
    ("messages", {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]}, "messages[0].tool_calls[0]"),  # noqa: E501
    ("messages", {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": {}}}]}]}, "messages[0].tool_calls[0]"),
    ("messages", {"messages": [{"role": "user", "content": "a"}], "tools": "{"}, "tools"),
    ("messages", {"messages": [{"role": "user", "content": "a"}], "tools": [{"function": 3}]}, "tools[0]"),
    ("sharegpt", {"conversations": [{"from": "alien", "value": "a"}]}, "conversations[0].from"),
    ("sharegpt", {"conversations": [{"from": "gpt"}]}, "conversations[0].value"),
    ("sharegpt", {"conversations": [{"from": "function_call", "value": "no json"}]}, "conversations[0].value"),
    ("sharegpt", {"conversations": [{"from": "system", "value": "a"}], "system": "b"}, "system"),
    ("alpaca", {"instruction": "a"}, "output"),
    ("alpaca", {"instruction": " ", "input": "", "output": "b"}, "instruction"),
    ("alpaca", {"instruction": "a", "output": 0.5}, "output"),
    ("alpaca", {"instruction": "a", "output": "b", "history": [["c"]]}, "history[0]"),
    ("prompt-completion", {"prompt": "a", "completion": None}, "completion"),
    ("prompt-completion", {"prompt": True, "completion": "b"}, "prompt"),
    ("prompt-completion", {"prompt": "a", "completion": [{"role": "user", "content": "b"}]}, "completion"),
    ("preference", {"prompt": "a", "chosen": "b"}, "rejected"),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": "b"}, "rejected"),
    ("preference", {"chosen": "b", "rejected": "c"}, "prompt"),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": [{"role": "assistant", "content": "c"}]}, "rejected"),
    ("preference", {"chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "chosen"),  # noqa: E501
    ("preference", {"chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "user", "content": "b"}]}, "chosen"),
    ("preference", {"chosen": [{"role": "assistant", "content": "a"}], "rejected": [{"role": "assistant", "content": "b"}]}, "prompt"),
    ("kto", {"prompt": "a", "completion": "b", "label": "maybe"}, "label"),
    ("kto", {"prompt": "a", "completion": "b"}, "label"),
    ("kto", {"messages": [{"role": "user", "content": "a"}], "label": True}, "messages"),
    ("text", {"text": "  "}, "text"),
    ("text", {"text": ["a"]}, "text"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "field"), WRONG)
def test_a_row_that_does_not_fit_is_refused_by_the_name_of_its_field(name, row, field):
    with pytest.raises(RowError) as error:
        catalog.find("format", name)().record(row)
    assert error.value.message.startswith(field) and error.value.remedy


def test_unknown_and_ambiguous_columns_say_what_was_found_and_what_to_do():
    with pytest.raises(DataError) as error:
        detect([{"question": "a", "answer": "b"}], "rows.csv")
    assert all(word in str(error.value) for word in ("question, answer", "prompt-completion", "columns:", "render:"))
    with pytest.raises(DataError) as error:
        detect([{"prompt": "a", "completion": "b", "text": "c"}], "rows.csv")
    assert "prompt-completion, text" in error.value.message and "format:" in error.value.remedy


def test_columns_that_are_not_read_are_named():
    assert detect([{"text": "a", "label": 1, "source": "b"}], "rows.csv").reason.endswith("not read: label, source")


def test_one_odd_row_does_not_change_the_format():
    rows = [{"prompt": "a", "completion": "b"}] * 5
    assert detect([*rows, {"text": "c"}], "rows.jsonl").format.kind == "prompt-completion"


def test_a_class_column_is_no_rating():
    assert detect([{"prompt": "a", "completion": "b", "label": "sport"}], "rows.jsonl").format.kind == "prompt-completion"


def test_render_makes_rows_of_any_table():
    row = {"text": "Good film", "label": 1}
    record = renderer(Render(system="Be brief", prompt="Sentiment? {{ text }}", completion="{{ ['bad', 'good'][label] }}"), "rows.csv")
    assert record(row) == Completion("Sentiment? Good film", "good", "Be brief")
    assert renderer(Render(text="{{ text }}!"), "rows.csv")(row) == Text("Good film!")
    pair = renderer(Render(prompt="{{ text }}", chosen="{{ label }}", rejected="{{ 1 - label }}"), "rows.csv")
    assert pair(row) == Pair(Completion("Good film", "1"), Completion("Good film", "0"))
    with pytest.raises(RowError, match=r"render\.completion: 'lable' is undefined"):
        renderer(Render(prompt="a", completion="{{ lable }}"), "rows.csv")(row)
    with pytest.raises(RowError):
        renderer(Render(prompt="a", completion="{{ label.__class__.__mro__[1].__subclasses__() }}"), "rows.csv")(row)
    with pytest.raises(DataError, match=r"render\.prompt"):
        renderer(Render(prompt="{{ text", completion="b"), "rows.csv")
