"""The silent failures of docs/trust.md that begin in the data, numbered as there: each planted, and refused, corrected or counted."""

import json

import numpy as np
import pytest
from chat_tokenizers import CHATML, ENDS_WITH_NEXT_TURN, LLAMA2, chat_tokenizer

from etude.data.prepare import prepare
from etude.errors import DataError
from etude.recipe.data import Data

END = "<|im_end|>"


def rows_of(folder, *rows):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def ready(path, tokenizer, stop=END, **data):
    recipe = Data.model_validate({"sources": path, "held_out": 0, **data})
    return prepare(recipe, tokenizer, roles=(), stop_ids=frozenset({tokenizer.convert_tokens_to_ids(stop)}), seed=0)


def only_sample(prepared):
    ((_, (example,)),) = prepared.train
    (sample,) = example.samples
    return sample


def learnt(sample, tokenizer):
    return tokenizer.decode(sample.tokens[sample.weight > 0])


def chat(*said):
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]}


SHORT = chat("two and two?", "four")
LONG = chat("Once upon a time? " * 30, "a dog " * 40, "And then?", "a fox 🙂")


def test_1_an_answer_is_never_cut_off_by_the_length_limit(tmp_path):
    tokenizer, path = chat_tokenizer(), rows_of(tmp_path, LONG, SHORT, chat("And?", "a dog " * 200))
    with pytest.raises(DataError, match=r"rows\.jsonl:1: .* tokens, and the context is 64"):
        ready(path, tokenizer, context=64, too_long="error")
    dropped = ready(path, tokenizer, context=64, too_long="drop").counts
    assert dropped.total("too_long") == 2 and any("2 rows left out: longer than the context" in line for line in dropped.lines())
    cut = ready(path, tokenizer, context=64, too_long="truncate")
    assert [learnt(e.samples[0], tokenizer) for e in cut.train[0][1]] == [f"a fox 🙂{END}", f"four{END}"]
    assert (cut.counts.total("truncated"), cut.counts.total("answers_cut"), cut.counts.total("last_turn_too_long")) == (1, 1, 1)


@pytest.mark.parametrize(
    "row",
    [
        chat("two and two?"),
        chat("two and two?", "  "),
        {"messages": [*SHORT["messages"][:1], {**SHORT["messages"][1], "train": False}]},
        {"messages": [{"role": "assistant", "content": "Welcome"}]},
    ],
)
def test_2_a_row_with_nothing_to_learn_stops_or_is_counted(tmp_path, row):
    path = rows_of(tmp_path, SHORT, row)
    with pytest.raises(DataError, match=r"rows\.jsonl:2: "):
        ready(path, chat_tokenizer())
    prepared = ready(path, chat_tokenizer(), bad_rows="drop")
    assert only_sample(prepared).weight.any() and sum(prepared.counts.bad.values()) == 1 and prepared.counts.sources[0].dropped[0].row == 2


def theirs(tokenizer, row):
    """The mask of transformers for the same row."""
    found = tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    return np.array(found["assistant_masks"]).ravel(), np.array(found["input_ids"]).ravel()


def test_3_a_template_without_generation_tags_gives_no_mask_of_zeros(tmp_path):
    tokenizer = chat_tokenizer()
    assert not theirs(tokenizer, SHORT)[0].any(), "the failure itself: transformers masks the whole row, and says so in a log line"
    assert learnt(only_sample(ready(rows_of(tmp_path, SHORT), tokenizer)), tokenizer) == f"four{END}"


def test_3_the_last_character_of_an_answer_is_learnt_whole(tmp_path):
    tagged = CHATML.replace("m['content'] +", "'' }}{% generation %}{{ m['content'] }}{% endgeneration %}{{")
    row, tokenizer = chat("two and two?", "four 🙂"), chat_tokenizer(tagged)
    mask, ids = theirs(tokenizer, row)
    assert "🙂" not in tokenizer.decode(ids[-8:][mask[-8:] == 1]), "the failure itself: transformers stops inside the character"
    assert learnt(only_sample(ready(rows_of(tmp_path, row), tokenizer)), tokenizer) == f"four 🙂{END}"


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (CHATML.replace("m['content']", "m['content'][:9]"), "not in what would be learnt"),
        (CHATML.replace("assistant\n", "bot\n"), "does not lead into"),
    ],
)
def test_3_a_mask_that_misses_its_answer_stops(tmp_path, template, what):
    with pytest.raises(DataError, match=what):
        ready(rows_of(tmp_path, chat("well?", "four and no more")), chat_tokenizer(template))


def test_4_an_end_of_turn_that_would_never_be_learnt_stops(tmp_path):
    path = rows_of(tmp_path, SHORT)
    with pytest.raises(DataError, match=r"rows\.jsonl:1: .*no stop token ends the answer") as error:
        ready(path, chat_tokenizer(ENDS_WITH_NEXT_TURN), stop="<|user|>")
    assert "would never learn to stop" in error.value.remedy
    with pytest.raises(DataError, match="no stop token ends the answer"):
        ready(path, chat_tokenizer(), stop="</s>")
    sample = only_sample(ready(path, chat_tokenizer()))
    assert sample.weight[-1] == 1 and sample.tokens[-1] == chat_tokenizer().eos_token_id


def test_5_padding_with_the_end_of_turn_masks_no_real_end(tmp_path):
    path = rows_of(tmp_path, chat("two and two?", "four", "and three?", "six"))
    apart, same = (only_sample(ready(path, chat_tokenizer(pad=pad))) for pad in ("<unk>", END))
    assert apart.tokens.tolist() == same.tokens.tolist() and apart.weight.tolist() == same.weight.tolist()
    ends = same.tokens == chat_tokenizer().eos_token_id
    assert ends.sum() == 4 and same.weight[ends].tolist() == [0, 1, 0, 1]


def test_6_the_beginning_of_text_stands_once_though_template_and_tokenizer_both_write_it(tmp_path):
    tokenizer = chat_tokenizer(LLAMA2, eos="</s>", adds_beginning=True)
    rendered = tokenizer.apply_chat_template(SHORT["messages"], tokenize=False)
    assert tokenizer(rendered)["input_ids"].count(tokenizer.bos_token_id) == 2, "the failure itself"
    assert (only_sample(ready(rows_of(tmp_path, SHORT), tokenizer, stop="</s>")).tokens == tokenizer.bos_token_id).sum() == 1
    plain = chat_tokenizer(None, eos="</s>", adds_beginning=True)
    sample = only_sample(ready(rows_of(tmp_path, {"prompt": "two and two?", "completion": " four"}), plain, stop="</s>"))
    assert plain.decode(sample.tokens) == "<s>two and two? four</s>"


@pytest.mark.parametrize(
    ("template", "row", "what"),
    [
        ("{{ bos_token + bos_token }}" + CHATML, SHORT, "begins with two"),
        (CHATML.replace("'<|im_end|>\n'", "'<|im_end|><|im_end|>\n'"), SHORT, "stands twice behind the answer"),
        (CHATML, chat("two and two?", f"four{END}"), "spells '<\\|im_end\\|>'"),
        (CHATML, chat("<s>two and two?", "four"), "spells '<s>'"),
        (None, {"prompt": "two and two?", "completion": f"four{END}"}, "spells '<\\|im_end\\|>'"),
    ],
)
def test_6_doubled_marks_stop(tmp_path, template, row, what):
    with pytest.raises(DataError, match=rf"rows\.jsonl:1: .*{what}"):
        ready(rows_of(tmp_path, row), chat_tokenizer(template))


def test_22_rows_on_both_sides_of_the_split_leave_training(tmp_path):
    rows = [{"prompt": f"question {i % 30}?", "completion": f"answer {i}"} for i in range(60)]
    tokenizer = chat_tokenizer()
    prepared = ready(rows_of(tmp_path, *rows), tokenizer, held_out=10)
    prompt = lambda sample: sample.tokens[: int(sample.weight.argmax())].tobytes()
    asked = {prompt(example.samples[0]) for example in prepared.held_out}
    assert not asked & {prompt(example.samples[0]) for example in prepared.train[0][1]}
    removed = prepared.counts.total("duplicates_of_held_out")
    assert removed > 0 and removed + 10 + len(prepared.train[0][1]) == 60
    assert any("taken out of training" in line for line in prepared.counts.lines())
