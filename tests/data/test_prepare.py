"""From a recipe's `data` to examples and questions: every row accounted for, the same whatever the order, nothing held out in training."""

import json
import random
from itertools import pairwise

import numpy as np
import pytest
from chat_tokenizers import CHATML, ENDS_LAST_TURN, STRIPS_THOUGHTS, chat_tokenizer
from rich.console import Console

from etude.data.prepare import prepare, training_texts
from etude.data.show import as_json, renderables, spans
from etude.errors import DataError
from etude.recipe.data import Data

STOPS = frozenset({3})  # <|im_end|>


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return str(path)


def ready(sources, tokenizer=None, roles=(), stops=STOPS, seed=0, **data):
    recipe = Data.model_validate({"sources": sources, "held_out": 0, **data})
    return prepare(recipe, tokenizer or chat_tokenizer(), roles=roles, stop_ids=stops, seed=seed)


def simple(n):
    return [{"prompt": f"question {i}?", "completion": f"answer {i} 🙂"} for i in range(n)]


def chat(*said, system=None):
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *messages]}


def adds_up(prepared):
    for source in prepared.counts.sources:
        assert source.read == source.kept + source.left_out
        assert source.kept == source.training + source.held_out + source.duplicates_of_held_out
    assert prepared.counts.lines()


def texts(examples, tokenizer):
    return [tokenizer.decode(sample.tokens) for example in examples for sample in example.samples]


def test_rows_become_examples_questions_and_counts(tmp_path):
    path, tokenizer = write(tmp_path / "rows.jsonl", simple(40)), chat_tokenizer()
    prepared = ready(path, tokenizer, held_out=8)
    adds_up(prepared)
    ((source, train),) = prepared.train
    assert source.path == path and len(train) == 32 and len(prepared.held_out) == len(prepared.questions) == 8
    assert [example.row for example in train] == sorted(example.row for example in train)
    assert {e.row for e in train} | {e.row for e in prepared.held_out} == set(range(1, 41))
    for question, example in zip(prepared.questions, prepared.held_out, strict=True):
        (sample,) = example.samples
        start = int(sample.weight.argmax())
        assert (question.tokens == sample.tokens[:start]).all() and question.tokens.dtype == np.int32
        assert tokenizer.decode(sample.tokens[start:]) == question.expected + "<|im_end|>"
        assert question.messages == ({"role": "user", "content": f"question {question.row - 1}?"},) and question.row == example.row
    count = prepared.counts.sources[0]
    assert count.supervised_tokens == sum(int(s.weight.sum()) for e in train for s in e.samples)
    assert count.logical_tokens == sum(len(s) for e in train for s in e.samples)
    assert "format prompt-completion" in prepared.counts.lines()[1]


def test_the_split_is_exact_and_stands_whatever_the_order(tmp_path):
    rows = simple(200)
    shuffled = random.Random(1).sample(rows, 200)
    one, other = (ready(write(tmp_path / f"{i}.jsonl", r), held_out=0.1, seed=2) for i, r in enumerate((rows, shuffled)))
    asked = {question.expected for question in one.questions}
    assert [q.expected for q in one.questions] == [q.expected for q in other.questions], "in the order of the draw"
    assert len(asked) == 20 and asked == {question.expected for question in other.questions}
    assert one.fingerprint != other.fingerprint, "another order of the training rows is another course"
    assert asked != {question.expected for question in ready(write(tmp_path / "2.jsonl", rows), held_out=0.1, seed=1).questions}
    more = ready(write(tmp_path / "3.jsonl", [*simple(220)[200:], *rows]), held_out=0.1, seed=2)
    assert len(asked & {question.expected for question in more.questions}) >= 18 and len(more.questions) == 22
    assert more.fingerprint != one.fingerprint


def test_the_first_held_out_rows_are_a_fair_sample_of_all(tmp_path):
    """Two sources, one of them sorted by its answer: a judge that looks at the first rows alone sees both, and both answers."""
    sorted_rows = [{"prompt": f"is it {i}?", "completion": "yes" if i < 100 else "no"} for i in range(200)]
    one, other = write(tmp_path / "a.jsonl", sorted_rows), write(tmp_path / "b.jsonl", simple(200))
    prepared = ready([one, other], held_out=0.5)
    assert {example.source for example in prepared.held_out[:20]} == {one, other}
    assert [example.row for example in prepared.held_out] == [question.row for question in prepared.questions]
    aside = ready(other, held_out={"path": one})
    assert {question.expected for question in aside.questions[:20]} == {"yes", "no"}


def test_rows_are_known_again_in_another_run(tmp_path):
    """By their prompt, whatever was answered; a text, however it was cut."""
    one, other = ready(write(tmp_path / "a.jsonl", simple(9))), ready(write(tmp_path / "b.jsonl", simple(9)[4:]), held_out=2, seed=3)
    assert set(other.asked.values()) | set(other.trained_on.tolist()) < set(one.trained_on.tolist()) and len(one.trained_on) == 9
    answered = ready(write(tmp_path / "c.jsonl", [{**row, "completion": "another"} for row in simple(9)]))
    assert answered.trained_on.tolist() == one.trained_on.tolist()
    story = write(tmp_path / "d.jsonl", [{"text": "Once upon a time there was a quick brown fox. " * 40}])
    whole, pieces = ready(story, context=1000), ready(story, context=32)
    assert whole.trained_on.tolist() == pieces.trained_on.tolist() and len(pieces.train[0][1]) > 5


def test_the_same_rows_with_other_threads_are_the_same(tmp_path, monkeypatch):
    path = write(tmp_path / "rows.jsonl", simple(300))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    alone = ready(path, held_out=0.1)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    together = ready(path, held_out=0.1)
    assert alone.fingerprint == together.fingerprint
    for (_, ours), (_, theirs) in zip(alone.train, together.train, strict=True):
        assert [(e.row, e.samples[0].tokens.tobytes()) for e in ours] == [(e.row, e.samples[0].tokens.tobytes()) for e in theirs]


def test_the_fingerprint_sees_a_single_weight(tmp_path):
    rows = [chat("a", "b", "c", "d")]
    plain = ready(write(tmp_path / "a.jsonl", rows))
    rows[0]["messages"][1]["train"] = False
    flagged = ready(write(tmp_path / "b.jsonl", rows))
    assert plain.train[0][1][0].samples[0].tokens.tolist() == flagged.train[0][1][0].samples[0].tokens.tolist()
    assert plain.fingerprint != flagged.fingerprint


def test_sources_keep_their_weight_and_a_source_of_its_own_is_held_out(tmp_path):
    one, other = (
        write(tmp_path / "a.jsonl", simple(6)),
        write(tmp_path / "b.jsonl", [{"text": f"a story of the fox {i}"} for i in range(3)]),
    )
    aside = write(tmp_path / "c.jsonl", simple(8)[5:])
    prepared = ready([{"path": one, "weight": 3.0}, other], held_out={"path": aside})
    adds_up(prepared)
    assert [(source.weight, len(examples)) for source, examples in prepared.train] == [(3.0, 5), (None, 3)]
    assert (
        len(prepared.held_out) == 3 and prepared.counts.sources[0].duplicates_of_held_out == 1 and prepared.counts.sources[2].held_out == 3
    )


def test_repeated_rows_are_counted_and_stay(tmp_path):
    prepared = ready(write(tmp_path / "rows.jsonl", simple(5) + simple(2)))
    assert prepared.counts.sources[0].duplicates_in_training == 2 and len(prepared.train[0][1]) == 7


def test_a_held_out_text_leaves_training_with_all_its_copies(tmp_path):
    prepared = ready(write(tmp_path / "rows.jsonl", [{"text": f"a dog {i % 7}"} for i in range(35)]), held_out=3)
    adds_up(prepared)
    held = {e.samples[0].tokens.tobytes() for e in prepared.held_out}
    assert (
        not held & {e.samples[0].tokens.tobytes() for e in prepared.train[0][1]} and prepared.counts.sources[0].duplicates_of_held_out >= 2
    )
    assert prepared.questions == []


def test_a_single_text_cannot_be_divided_and_that_is_said(tmp_path):
    (tmp_path / "story.txt").write_text("Once upon a time there was a dog. " * 50)
    prepared = ready(str(tmp_path / "story.txt"), held_out=0.1, context=64)
    assert prepared.held_out == [] and any("nothing is held out" in line for line in prepared.counts.lines())


def test_nothing_left_to_train_on_stops_and_says_why(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"prompt": "the same?", "completion": f"answer {i}"} for i in range(20)])
    with pytest.raises(DataError, match="have the same prompt as a held-out row"):
        ready(path, held_out=2)
    with pytest.raises(DataError, match="rows to hold out"):
        ready(path, held_out=20)
    (tmp_path / "blank.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="no rows"):
        ready(str(tmp_path / "blank.jsonl"))


def test_pairs_bring_both_roles_and_share_their_prompt(tmp_path):
    path, tokenizer = (
        write(tmp_path / "rows.jsonl", [{"prompt": f"q {i}", "chosen": "yes", "rejected": "no 🙂"} for i in range(10)]),
        chat_tokenizer(),
    )
    prepared = ready(path, tokenizer, roles=("chosen", "rejected"), held_out=2, train_on="everything")
    adds_up(prepared)
    for example in prepared.train[0][1]:
        chosen, rejected = example.samples
        assert (chosen.role, rejected.role) == ("chosen", "rejected")
        assert tokenizer.decode(chosen.tokens[chosen.weight > 0]) == "yes<|im_end|>"
        assert tokenizer.decode(rejected.tokens[rejected.weight > 0]) == "no 🙂<|im_end|>"
        start = int(chosen.weight.argmax())
        assert (chosen.tokens[:start] == rejected.tokens[:start]).all()
    assert {question.expected for question in prepared.questions} == {"yes"}


def test_rated_answers_carry_their_rating_as_role(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"prompt": f"q {i}", "completion": "yes", "label": i % 2 == 0} for i in range(4)])
    prepared = ready(path, roles=("desirable", "undesirable"))
    assert [example.samples[0].role for example in prepared.train[0][1]] == ["desirable", "undesirable"] * 2


@pytest.mark.parametrize(
    ("row", "roles", "says"),
    [
        ({"prompt": "a", "completion": "b"}, ("chosen", "rejected"), "chosen and rejected answers, and these rows are single answers"),
        ({"text": "a"}, ("chosen", "rejected"), "these rows are raw text"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, (), "needs single answers or raw text, and these rows are pairs"),
        ({"prompt": "a", "completion": "b", "label": True}, (), "these rows are rated answers"),
    ],
)  # fmt: skip
def test_data_of_another_kind_than_the_objective_stops_whatever_bad_rows_says(tmp_path, row, roles, says):
    with pytest.raises(DataError, match=says):
        ready(write(tmp_path / "rows.jsonl", [row]), roles=roles, bad_rows="drop")


def test_long_texts_are_split_and_every_token_is_learnt_once(tmp_path):
    story = "Once upon a time there was a quick brown fox. " * 40
    path = write(tmp_path / "rows.jsonl", [{"text": story}, {"text": "A dog."}])
    for tokenizer in (chat_tokenizer(), chat_tokenizer(adds_beginning=True)):
        prepared = ready(path, tokenizer, context=32)
        samples = [sample for example in prepared.train[0][1] if example.row == 1 for sample in example.samples]
        lead = len(tokenizer("a")["input_ids"]) - 1
        whole = tokenizer(story, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        learnt = [token for sample in samples for token in sample.tokens[sample.weight > 0].tolist()]
        assert learnt == whole[1 - lead :], "each once; the very first only where a beginning of text stands before it"
        assert max(map(len, samples)) <= 32 and all((sample.tokens == tokenizer.bos_token_id).sum() == lead for sample in samples)
        for before, after in pairwise(samples):
            assert before.tokens[-1] == after.tokens[lead] and after.weight[: lead + 1].sum() == 0
        count = prepared.counts.sources[0]
        assert (count.split_documents, count.pieces, count.training, count.examples) == (1, len(samples), 2, len(samples) + 1)


def test_a_text_that_ends_in_the_end_of_text_is_not_ended_twice(tmp_path):
    prepared = ready(write(tmp_path / "rows.jsonl", [{"text": "A dog.<|im_end|>"}]))
    assert prepared.train[0][1][0].samples[0].tokens.tolist().count(3) == 1 and prepared.counts.sources[0].marked == 1


LONG = chat("first " * 20, "one", "second " * 20, "two", "third?", "three 🙂", system="Be brief")


def test_too_long_rows_are_dropped_cut_or_a_stop_and_always_counted(tmp_path):
    path, tokenizer = write(tmp_path / "rows.jsonl", [LONG, chat("short?", "yes")]), chat_tokenizer()
    dropped = ready(path, tokenizer, context=60)
    adds_up(dropped)
    assert dropped.counts.sources[0].too_long == 1 and len(dropped.train[0][1]) == 1
    assert dropped.counts.sources[0].dropped[0].row == 1 and "tokens, and the context is 60" in dropped.counts.sources[0].dropped[0].why
    with pytest.raises(DataError, match=r"rows.jsonl:1: .* tokens, and the context is 60"):
        ready(path, tokenizer, context=60, too_long="error")
    with pytest.raises(DataError):
        ready(path, tokenizer, context=60, too_long="error", bad_rows="drop")


def test_the_context_is_exact(tmp_path):
    path = write(tmp_path / "rows.jsonl", [chat("short?", "yes"), LONG])
    (length,) = (len(example.samples[0]) for example in ready(path, context=60).train[0][1])
    assert ready(path, context=length).counts.sources[0].kept == 1
    with pytest.raises(DataError, match="no row left"):
        ready(path, context=length - 1)


def test_truncation_takes_early_turns_whole_and_keeps_the_system_and_the_end(tmp_path):
    path, tokenizer = write(tmp_path / "rows.jsonl", [LONG]), chat_tokenizer()
    lengths = {
        context: texts(ready(path, tokenizer, context=context, too_long="truncate").train[0][1], tokenizer)[0] for context in (400, 160, 50)
    }
    system = "<|im_start|>system\nBe brief<|im_end|>\n"
    assert "first" in lengths[400]
    assert lengths[160].startswith(system + "<|im_start|>user\nsecond") and "first" not in lengths[160]
    assert lengths[50] == system + "<|im_start|>user\nthird?<|im_end|>\n<|im_start|>assistant\nthree 🙂<|im_end|>"
    count = ready(path, tokenizer, context=50, too_long="truncate").counts.sources[0]
    assert (count.truncated, count.turns_cut, count.answers_cut) == (1, 4, 2)
    with pytest.raises(DataError, match="no row left"):
        ready(path, tokenizer, context=20, too_long="truncate")
    two = write(tmp_path / "two.jsonl", [LONG, chat("a", "b")])
    assert ready(two, tokenizer, context=20, too_long="truncate").counts.sources[0].last_turn_too_long == 1


def test_truncated_pairs_keep_one_prompt(tmp_path):
    before = LONG["messages"][:-1]
    row = {
        "prompt": before,
        "chosen": [{"role": "assistant", "content": "yes"}],
        "rejected": [{"role": "assistant", "content": "no way 🙂"}],
    }
    prepared = ready(write(tmp_path / "rows.jsonl", [row]), roles=("chosen", "rejected"), context=60, too_long="truncate")
    chosen, rejected = prepared.train[0][1][0].samples
    start = int(chosen.weight.argmax())
    assert len(rejected) <= 60 and (chosen.tokens[:start] == rejected.tokens[:start]).all() and start == int(rejected.weight.argmax())


def test_unrolled_conversations_are_one_example(tmp_path):
    prepared = ready(write(tmp_path / "rows.jsonl", [chat("a", "one", "b", "two")]), chat_tokenizer(STRIPS_THOUGHTS))
    assert len(prepared.train[0][1]) == 1 and len(prepared.train[0][1][0].samples) == 2 and prepared.counts.sources[0].unrolled == 1


def test_bad_rows_stop_with_their_place_or_are_counted_by_kind(tmp_path):
    rows = [*simple(3), {"prompt": "a", "completion": ""}, {"prompt": "a"}, {"prompt": "a", "completion": "b<|im_end|>"}]
    path = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match=r"rows.jsonl:\d: "):
        ready(path)
    prepared = ready(path, bad_rows="drop")
    adds_up(prepared)
    assert sum(prepared.counts.bad.values()) == 3 and len(prepared.counts.bad) == 3
    assert sorted(one.row for one in prepared.counts.sources[0].dropped) == [4, 5, 6]


def test_a_tokenizer_without_template_joins_plain_strings_and_refuses_turns(tmp_path):
    tokenizer = chat_tokenizer(None)
    prepared = ready(write(tmp_path / "rows.jsonl", simple(3)), tokenizer)
    assert texts(prepared.train[0][1], tokenizer)[0] == "question 0?answer 0 🙂<|im_end|>" and prepared.counts.sources[0].touching == 3
    with pytest.raises(DataError, match=r"rows.jsonl:1: this tokenizer has no chat template") as error:
        ready(write(tmp_path / "rows.jsonl", [chat("a", "b")]), tokenizer)
    assert error.value.remedy


def test_progress_counts_usable_rows(tmp_path):
    said = []
    data = Data.model_validate(
        {"sources": [write(tmp_path / "a.jsonl", simple(300)), write(tmp_path / "b.jsonl", simple(10))], "held_out": 0}
    )
    prepare(data, chat_tokenizer(), roles=(), stop_ids=STOPS, seed=0, progress=said.append)
    assert said == [256, 300, 310]


@pytest.mark.parametrize("template", [CHATML, STRIPS_THOUGHTS, ENDS_LAST_TURN])
def test_what_is_shown_is_what_is_learnt(tmp_path, template):
    tokenizer = chat_tokenizer(template)
    path = write(tmp_path / "rows.jsonl", [chat("a🙂", "one 🙂", "b", "two"), {"messages": []}, *[chat("x" * i, "y") for i in range(1, 9)]])
    prepared = ready(path, tokenizer, bad_rows="drop")
    for sample in prepared.train[0][1][0].samples:
        shown = spans(sample, tokenizer)
        assert "".join(span.text for span in shown) == tokenizer.decode(sample.tokens)
        assert "".join(s.text for s in shown if s.learnt) == tokenizer.decode(sample.tokens[sample.weight > 0])
        assert all(span.special == span.text.startswith("<|") for span in shown)
    console = Console(width=300, record=True, force_terminal=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(*renderables(prepared, tokenizer), sep="\n")
    page = console.export_text(styles=True)
    assert "\x1b[1;32m" in page and "two" in page and "rows.jsonl:2" in page and "9 kept" in page
    plain = json.loads(json.dumps(as_json(prepared, tokenizer)))
    assert sum(bucket["samples"] for bucket in plain["lengths"]) == sum(len(e.samples) for e in prepared.train[0][1])
    assert plain["counts"][0]["dropped"][0]["row"] == 2 and plain["fingerprint"] == prepared.fingerprint


def test_a_tokenizer_yet_to_be_trained_sees_no_row_that_will_be_held_out(tmp_path):
    """Rows that render to nothing are no rows, in the draw of either."""
    rows = [{"body": f"words number {i}" if i % 3 == 0 else "", "row": i} for i in range(60)]
    source = {"path": write(tmp_path / "rows.jsonl", rows), "render": {"text": "{{ body }}"}}
    data = Data.model_validate({"sources": [source], "held_out": 5, "bad_rows": "drop"})
    tokenizer = chat_tokenizer(None)
    prepared = ready([source], tokenizer, held_out=5, bad_rows="drop")
    adds_up(prepared)
    plain = lambda examples: {tokenizer.decode(one.samples[0].tokens, skip_special_tokens=True) for one in examples}
    shown = training_texts(data, 0)
    assert len(shown) == 15 and set(shown) == plain(prepared.train[0][1]) and not set(shown) & plain(prepared.held_out)
    with pytest.raises(DataError, match=r"rows.jsonl:2: render.text: blank"):
        ready([source], tokenizer)


def test_a_bad_row_of_a_held_out_source_is_placed_or_passed_over(tmp_path):
    train = write(tmp_path / "train.jsonl", [{"text": "a"}, {"text": "b"}])
    apart = write(tmp_path / "apart.jsonl", [{"text": "b"}, {"text": 2.5}])
    recipe = {"sources": [train], "held_out": apart}
    with pytest.raises(DataError, match=r"apart.jsonl:2: text: a number where text is needed"):
        training_texts(Data.model_validate(recipe), 0)
    assert training_texts(Data.model_validate({**recipe, "bad_rows": "drop"}), 0) == ["a"]
