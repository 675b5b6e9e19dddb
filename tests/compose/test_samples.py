"""What a model wrote along the way is read back as it was written, also after a crash in the middle of a line."""

import pytest
import small_project
import tiny
from chat_tokenizers import chat_tokenizer

import etude
from etude.compose.samples import SAMPLES, continued, read_samples
from etude.errors import TrainingError
from etude.evaluation.judgement import Written
from etude.recipe.schema import Train

ODD = "one\u2028two\x85three\x0bfour"
"""What `str.splitlines` takes for the ends of lines, and JSON does not escape."""


def written(**one) -> str:
    return Written(step=1, prompt="a", text="b").model_copy(update=one).model_dump_json()


def test_what_is_no_line_end_in_json_ends_no_line(tmp_path):
    (tmp_path / SAMPLES).write_text(written(text=ODD) + "\n", encoding="utf-8")
    said = []
    assert [one.text for one in read_samples(tmp_path, said.append)] == [ODD] and not said


def test_a_torn_line_is_left_out_and_the_next_begins_anew(tmp_path):
    whole, torn = written(), written(step=2, text='ends in }').encode()
    (tmp_path / SAMPLES).write_bytes(whole.encode() + b"\n" + torn[: torn.index(b"}") + 1])
    tokenizer = chat_tokenizer()
    model = tiny.llama(vocab_size=len(tokenizer))
    train = Train.model_construct(samples=["red"], seed=0)
    assert len(list(continued(model, tokenizer, train, frozenset(), 3, tmp_path, print))) == 1
    said = []
    assert [one.step for one in read_samples(tmp_path, said.append)] == [1, 3]
    assert said == ["samples.jsonl: lines torn as a process ended, which are left out: 1"]


def test_a_beginning_as_long_as_the_context_is_refused_before_any_work(project, base, voice):
    one = small_project.stage(project / "answers.jsonl", samples=["fine", "red " * 300])
    with pytest.raises(TrainingError, match=r'train.samples: "red red .*…" has \d+ tokens; the model reads 256'):
        etude.run(str(small_project.recipe(project / "long.yaml", base, {"only": one})), project=project, voice=voice)
    assert not voice.trained


def test_what_leaves_little_room_is_said(project, base, voice):
    tokenizer = chat_tokenizer()
    long = next(text for n in range(256) if len(tokenizer(text := "red " * n)["input_ids"]) > 200)
    one = small_project.stage(project / "answers.jsonl", samples=[long], steps=1)
    etude.run(str(small_project.recipe(project / "long.yaml", base, {"only": one}, None)), project=project, voice=voice)
    assert any("leave less than 64 tokens of the model's context" in line for line in voice.lines)
