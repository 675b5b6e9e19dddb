"""A stage that reads a corpus: the same samples as from the text itself, the corpus's held-out documents, its own tokenizer alone."""

import json

import numpy as np
import pytest
import small_project
from chat_tokenizers import chat_tokenizer

import etude
from etude.data.prepare import prepare
from etude.errors import DataError, EtudeError
from etude.recipe.data import Data

TEXTS = [f"The quick brown fox number {i} jumps over the lazy dog. " * (1 + i % 5) for i in range(60)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project with a corpus and the text it is from."""
    folder = tmp_path_factory.mktemp("project")
    (folder / ".etude").mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    small_project.make_base(folder / "base")
    recipe = {"name": "made", "sources": "rows.jsonl", "tokenizer": "./base", "held_out": 0.2, "tokens_per_shard": 1000}
    recipe |= {"rules": [], "deduplicate": {"near": None}}
    (folder / "corpus.yaml").write_text(json.dumps(recipe))
    etude.corpus_prepare(folder / "corpus.yaml", project=folder)
    return folder


def read(folder, data, tokenizer=None, seed=0):
    tokenizer = tokenizer or chat_tokenizer()
    stops = frozenset({tokenizer.eos_token_id})
    return prepare(Data.model_validate(data), tokenizer, roles=(), stop_ids=stops, seed=seed, project=folder)


def samples(examples):
    return {(tuple(s.tokens.tolist()), tuple(s.weight.tolist())) for one in examples for s in one.samples}


@pytest.mark.parametrize("context", [1024, 24])
def test_the_samples_are_those_of_the_text_itself(made, context):
    ours = read(made, {"sources": "corpus:made", "context": context})
    plain = read(made, {"sources": str(made / "rows.jsonl"), "context": context, "held_out": 0})
    assert samples(ours.examples) | samples(ours.held_out) == samples(plain.examples)
    assert 3 < len({one.row for one in ours.held_out}) < 25
    held, trained = ({(one.source, one.row) for one in some} for some in (ours.held_out, ours.examples))
    assert not held & trained and len(held) + len(trained) == 60
    if context == 24:
        assert ours.counts.sources[0].split_documents > 20 and len(ours.examples) > len(trained)
    assert read(made, {"sources": "corpus:made", "context": context}).fingerprint == ours.fingerprint
    assert len(ours.trained_on) == len(trained) and len(ours.asked) == len(held)


def test_what_is_held_out_can_be_said(made):
    kept = {"sources": "corpus:made"}
    shards = etude.corpus_show("made", project=made)[1]["totals"]
    whole = read(made, kept)
    assert len({one.row for one in whole.held_out}) == shards["held_out"]["documents"]
    assert len({one.row for one in read(made, {**kept, "held_out": 7}).held_out}) == 7, "of the training documents"
    assert not read(made, {**kept, "held_out": 0}).held_out
    apart = {"path": "corpus:made@1", "split": "held_out"}
    assert samples(read(made, {**kept, "held_out": apart}).held_out) == samples(whole.held_out)
    with pytest.raises(DataError, match="a corpus holds out documents of its own"):
        read(made, {"sources": ["corpus:made", str(made / "rows.jsonl")]})
    mixed = read(made, {"sources": ["corpus:made", {"path": str(made / "rows.jsonl"), "weight": 2}], "held_out": apart})
    assert [source.path for source, _ in mixed.train] == ["corpus:made", str(made / "rows.jsonl")]
    assert not samples(mixed.examples) & samples(mixed.held_out), "the text's rows that the corpus holds out are taken out of training"


def test_a_limit_takes_the_same_documents(made):
    few, more = (read(made, {"sources": {"path": "corpus:made", "limit": n}, "held_out": 0}) for n in (5, 15))
    assert len(few.examples) == 5 and samples(few.examples) < samples(more.examples)
    assert few.counts.sources[0].left_out_by_limit == few.counts.sources[0].read - 5
    other = read(made, {"sources": {"path": "corpus:made", "limit": 5}, "held_out": 0}, seed=1)
    assert samples(other.examples) != samples(few.examples)


def test_what_a_corpus_cannot_be(made, tmp_path):
    other = chat_tokenizer()
    other.add_tokens(["fox"])
    with pytest.raises(DataError, match="the model's tokenizer is another one"):
        read(made, {"sources": "corpus:made"}, other)
    for key, value in (("where", "text != ''"), ("columns", {"body": "text"}), ("format", "text"), ("render", {"text": "{{ text }}"})):
        with pytest.raises(DataError, match=f"`{key}` is for rows"):
            read(made, {"sources": {"path": "corpus:made", key: value}})
    with pytest.raises(DataError, match="no split 'test'"):
        read(made, {"sources": {"path": "corpus:made", "split": "test"}})
    with pytest.raises(EtudeError, match="there is no corpus 'corpus:none'"):
        read(made, {"sources": "corpus:none"})
    with pytest.raises(DataError, match="tokens already, which stages read and nobody else"):
        etude.tokenizer_train(["corpus:made"], to=tmp_path / "made")


def test_a_recipe_runs_on_a_corpus_and_is_found_again(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the project is told, not found
    stage = small_project.stage("corpus:made", held_out=0.05)
    file = small_project.recipe(made / "on.yaml", made / "base", {"sft": stage})
    done = etude.run(str(file), project=made).stages["sft"]
    assert done.judgement.axes[0].n > 3 and done.record.counts["held_out"] > 3
    assert etude.run(str(file), project=made).stages["sft"].reused
    lines = etude.data_show(file, project=made).to_dict()
    assert "corpus:made" in json.dumps(lines)
    weights = np.load(done.folder / "trained_on.npy")
    assert len(weights) == done.record.counts["training"]
