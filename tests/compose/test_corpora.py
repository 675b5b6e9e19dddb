"""A corpus from its recipe to its folder: the same bytes for any workers, any interruption and any executor; and what is told of it."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from chat_tokenizers import chat_tokenizer
from few_files import few_files

import etude
from etude.compose import corpora
from etude.data.corpus import plan as planning
from etude.data.shards import Shards
from etude.errors import DataError, RecipeError

SENTENCES = [
    "The quick brown fox jumps over the lazy dog",
    "Tell me a story about a dog and a fox",
    "Name the capital of France, if you know it",
    "What is two and two, and what are three and three",
    "Once upon a time there was a dog",
    "He came with a lawyer and did not want the house",
]


def texts(count, begin=0):
    """Documents that differ in many places."""
    return [
        ". ".join(f"{SENTENCES[(i * 7 + k) % 6]} {i * 31 % 97} {k * i % 89} number{i}x{k}" for k in range(6)) + "."
        for i in range(begin, begin + count)
    ]


def project(folder, rows, **keys):
    """A recipe, its text and its tokenizer."""
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    if not (folder / "tokenizer").exists():
        chat_tokenizer().save_pretrained(folder / "tokenizer")
    recipe = {"name": "made", "sources": "rows.jsonl", "tokenizer": "./tokenizer", "held_out": 0.1, "tokens_per_shard": 3000, **keys}
    (folder / "corpus.yaml").write_text(json.dumps(recipe))
    return folder / "corpus.yaml"


def prepared(recipe, to, **more):
    return etude.corpus_prepare(recipe, to=to, project=recipe.parent, **more)


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rejected(folder):
    with gzip.open(folder / "rejected.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(planning, "PART", 4000)
    monkeypatch.setattr("etude.data.corpus.documents.PART", 4000)


def test_what_is_there_comes_from_somewhere(tmp_path, small_parts):
    rows = [*texts(120), *texts(10), "short one", "<|im_end|> is spelled here, " + texts(1, 500)[0]]
    recipe = project(tmp_path, rows, rules=["normalise", {"kind": "length", "least_words": 5}], deduplicate={"near": None})
    made = prepared(recipe, tmp_path / "c")
    (source,) = made.manifest["sources"]
    assert source["read"] == source["documents"] == 132 and source["kept"] == 131 and source["exact_duplicates"] == 10
    assert source["rules"][1]["rejected"] == {"too short": 1} and source["spelling_marks"] == 1
    assert source["train"]["documents"] + source["held_out"]["documents"] == 121
    shards = Shards.open(made.folder)
    shards.verify()
    assert len(shards) == source["train"]["documents"] and len(shards.documents("train").shards) > 1
    assert shards.documents("train").tokens == source["train"]["tokens"] == int(shards.documents("train").lengths.sum())
    tokenizer = chat_tokenizer()
    shards.check_tokenizer(tokenizer)
    kept = [text for text in dict.fromkeys(rows) if text != "short one"]
    said = [*shards, *shards.documents("held_out")]
    plainly = tokenizer(kept, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    expected = [[*ids, tokenizer.eos_token_id] for ids in plainly]
    assert sorted(tokens.tolist() for tokens in said) == sorted(expected), "as the tokenizer alone writes it, one end behind it"
    order = [expected.index(tokens.tolist()) for tokens in shards]
    assert order == sorted(order), "in the order of the sources"
    out = rejected(made.folder)
    assert len(out) == 11 and {one["reason"] for one in out} == {"too short", "exact duplicate"}
    twin = next(one for one in out if one["reason"] == "exact duplicate")
    assert twin["of"].endswith(f"rows.jsonl:{twin['row'] - 120}") and twin["text"] in rows
    hashes = np.fromfile(made.folder / "train.hashes", "<u8").reshape(-1, 2)
    assert len(hashes) == len(shards) == len(np.unique(hashes, axis=0))


def test_any_number_of_workers_gives_the_same_bytes(tmp_path, small_parts):
    pytest.importorskip("rensa")
    recipe = project(tmp_path, [*texts(150), *texts(20)])
    one, three = prepared(recipe, tmp_path / "one"), prepared(recipe, tmp_path / "three", workers=3)
    assert len(content(one.folder)) > 5 and content(one.folder) == content(three.folder)
    assert prepared(recipe, tmp_path / "one").reused
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith((".preparing", ".aside"))]


def test_many_parts_need_few_open_files(tmp_path, monkeypatch):
    monkeypatch.setattr("etude.data.corpus.documents.PART", 200)
    rows = [*texts(100), *texts(10), texts(1)[0]]
    recipe = project(tmp_path, rows, deduplicate={"near": None})
    planned = corpora.planned(corpora.read_corpus_recipe(recipe).recipe, tmp_path, corpora.Voice(), tmp_path)  # what is imported once
    assert planned.units
    with few_files(40):
        made = prepared(recipe, tmp_path / "c")
    assert made.manifest["sources"][0]["exact_duplicates"] == 11
    assert sorted(one["of"].rpartition(":")[2] for one in rejected(made.folder)) == sorted(["1", "1", *map(str, range(2, 11))])


def test_several_sources_and_kinds_of_files(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    some = texts(60)
    folder = tmp_path / "in"
    (folder / "below").mkdir(parents=True)
    with gzip.open(folder / "below" / "a.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in some[:20])
    pq.write_table(pa.table({"body": some[20:40]}), tmp_path / "b.parquet")
    (tmp_path / "texts").mkdir()
    for i, text in enumerate(some[40:]):
        (tmp_path / "texts" / f"{i:03d}.txt").write_text(text)
    sources = [
        "in",
        {"path": f"file://{tmp_path}/*.parquet", "columns": {"body": "text"}, "where": "text | length > 10"},
        {"path": "texts/*.txt", "limit": 15},
    ]
    recipe = project(tmp_path, some[:1], sources=sources, held_out=0, deduplicate={"near": None})
    made = prepared(recipe, tmp_path / "c")
    assert [source["documents"] for source in made.manifest["sources"]] == [20, 20, 15]
    assert made.manifest["sources"][2]["left_out_by_limit"] == 5
    tokenizer = chat_tokenizer()
    assert [tokenizer.decode(tokens[:-1]) for tokens in Shards.open(made.folder)][:40] == some[:40]


def test_held_out_documents_stay_so_when_the_corpus_grows(tmp_path):
    held = {}
    for count in (150, 300):
        recipe = project(tmp_path, texts(count), deduplicate={"near": None}, held_out=0.2)
        made = prepared(recipe, tmp_path / str(count))
        held[count] = {tokens.tobytes() for tokens in Shards.open(made.folder).documents("held_out")}
        assert 0.1 * count < len(held[count]) < 0.3 * count
    assert held[150] < held[300]


def test_versions_in_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".etude").mkdir()
    recipe = project(tmp_path, texts(40), deduplicate={"near": None})
    first = etude.corpus_prepare(recipe)
    assert first.folder == tmp_path / ".etude" / "corpora" / "made" / "1" and etude.corpus_prepare(recipe).reused
    second = etude.corpus_prepare(recipe, ["held_out=0.3"])
    assert second.folder.name == "2" and etude.corpus_show("made")[0] == second.folder
    assert etude.corpus_show("corpus:made@1", verify=True)[0] == first.folder
    with pytest.raises(etude.EtudeError, match="no corpus 'made@7'"):
        etude.corpus_show("made@7")


KILLED = """
import sys
from etude.data.corpus import documents, plan, clean, tokenise
plan.PART = documents.PART = 4000
import time
step, count = sys.argv[2], int(sys.argv[3])
whole = {"clean": clean.Cleaner.clean, "tokenise": tokenise.Writer.tokenise}
def slow(kind):
    def one(*arguments):
        global count
        if kind == step:
            count -= 1
            if count < 0:
                print("here", flush=True)
                time.sleep(60)
        return whole[kind](*arguments)
    return one
clean.Cleaner.clean, tokenise.Writer.tokenise = slow("clean"), slow("tokenise")
import etude
etude.corpus_prepare(sys.argv[1] + "/corpus.yaml", to=sys.argv[1] + "/c", project=sys.argv[1])
"""


@pytest.mark.parametrize(("step", "count"), [("clean", 5), ("tokenise", 3)])
def test_killed_and_gone_on_with_gives_the_same_bytes(tmp_path, small_parts, step, count):
    recipe = project(tmp_path, [*texts(120), *texts(20)], deduplicate={"near": None})
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), step, str(count)], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stdout.readline().strip() == "here"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (begun,) = tmp_path.glob(".preparing-*")
    before = {path.name: path.stat().st_mtime_ns for path in (begun / "parts").iterdir() if path.suffix == ".json"}
    assert len(before) >= count
    heard = []
    voice = type("Heard", (etude.compose.voice.Voice,), {"say": lambda self, line: heard.append(line)})()
    after: list[int] = []
    from etude.data.corpus.clean import Cleaner

    whole = Cleaner.clean
    Cleaner.clean = lambda *arguments: (after.append(1), whole(*arguments))[1]
    try:
        made = prepared(recipe, tmp_path / "c", voice=voice)
    finally:
        Cleaner.clean = whole
    parts = made.manifest["sources"][0]["documents"] and len(after)
    assert (parts == 0) if step == "tokenise" else (parts > 0), "what was done is not done again"
    assert any("goes on with" in line for line in heard)
    undisturbed = prepared(recipe, tmp_path / "other")
    assert content(made.folder) == content(undisturbed.folder)


def test_asked_to_stop_it_stops_and_goes_on(tmp_path, small_parts, monkeypatch):
    recipe = project(tmp_path, texts(120), deduplicate={"near": None})
    asked = iter([False] * 4)
    monkeypatch.setattr(corpora.Interrupt, "requested", lambda self: next(asked, True))
    assert prepared(recipe, tmp_path / "c").folder is None and not (tmp_path / "c").exists()
    monkeypatch.undo()
    monkeypatch.setattr("etude.data.corpus.documents.PART", 4000)
    assert content(prepared(recipe, tmp_path / "c").folder) == content(prepared(recipe, tmp_path / "d").folder)


def test_ctrl_c_of_the_command(tmp_path, monkeypatch):
    recipe = project(tmp_path, texts(800), deduplicate={"near": None})
    code = "from etude.data.corpus import documents, plan; documents.PART = plan.PART = 10000\nfrom etude.cli.main import main; main()"
    command = [sys.executable, "-c", code, "corpus", "prepare", str(recipe), "--to", str(tmp_path / "c"), "--workers", "1"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".preparing-*/parts/*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on from there" in said, said
    monkeypatch.setattr("etude.data.corpus.documents.PART", 10000)
    monkeypatch.setattr(planning, "PART", 10000)
    made = prepared(recipe, tmp_path / "c")
    assert made.manifest["totals"]["train"]["documents"] + made.manifest["totals"]["held_out"]["documents"] == 800


def test_datatroves_local_executor_gives_the_same_bytes(tmp_path):
    pytest.importorskip("datatrove")
    recipe = project(tmp_path, [*texts(100), *texts(10)], deduplicate={"near": None})
    there = prepared(recipe, tmp_path / "there", on="local")
    assert content(there.folder) == content(prepared(recipe, tmp_path / "here").folder)


def test_slurm_scripts_hold_the_same_steps(tmp_path, monkeypatch):
    pytest.importorskip("datatrove")
    import dill

    recipe = project(tmp_path, [*texts(60), *texts(10)], deduplicate={"near": None})
    with pytest.raises(DataError, match="no `sbatch`"):
        prepared(recipe, tmp_path / "there", on="slurm")
    (tmp_path / "bin").mkdir()
    commands = {
        "sbatch": f'echo "$@" >> {tmp_path}/asked; echo Submitted batch job 7', "scontrol": "echo node", "squeue": f"cat {tmp_path}/queue",
    }  # fmt: skip
    for name, does in commands.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    with pytest.raises(DataError, match="must be told partition"):
        prepared(recipe, tmp_path / "there", on="slurm")
    handed = prepared(recipe, tmp_path / "there", on="slurm", cluster=["partition=cpu", "mem_per_cpu_gb=4"], workers=2)
    assert handed.folder is None
    (work,) = tmp_path.glob(".preparing-*")
    scripts = {path.parent.name: path.read_text() for path in work.glob("logs/*/launch_script.slurm")}
    assert set(scripts) == {"clean", "distinct", "tokenise"} and all("--partition=cpu" in text for text in scripts.values())
    assert "afterok:7" in (tmp_path / "asked").read_text(), "one waits for the other"
    assert all(f"export PATH={Path(sys.executable).parent}:$PATH\n" in text for text in scripts.values()), "the same Python, venv or not"
    asked, heard = (tmp_path / "asked").read_text(), []
    voice = type("Heard", (corpora.Voice,), {"say": lambda self, line: heard.append(line)})()
    (tmp_path / "queue").write_text("7\n7\n")
    assert prepared(recipe, tmp_path / "there", on="slurm", cluster=["partition=cpu"], voice=voice).folder is None
    assert "still under way: the jobs 7; " in heard[-1] and (tmp_path / "asked").read_text() == asked, "nothing is handed in twice"
    (tmp_path / "queue").write_text("")  # the jobs failed: it may be handed in again
    prepared(recipe, tmp_path / "there", on="slurm", cluster=["partition=cpu"], workers=2)
    assert len((tmp_path / "asked").read_text().splitlines()) == 2 * len(asked.splitlines())
    for step, tasks in (("clean", 1), ("distinct", 1), ("tokenise", 2)):  # what the machines of a cluster would do
        for rank in range(tasks):
            monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(rank))
            monkeypatch.setenv("SLURM_NODELIST", "node")
            with (work / "logs" / step / "executor.pik").open("rb") as file:
                executor = dill.load(file)
            executor.requeue_signals = None
            executor.run()
    made = prepared(recipe, tmp_path / "there", on="slurm", cluster=["partition=cpu"])
    assert content(made.folder) == content(prepared(recipe, tmp_path / "here").folder)


def test_mistakes_are_told_before_anything_is_done(tmp_path):
    recipe = project(tmp_path, texts(5))
    recipe.write_text("name: made\nsources: {path: rows.jsonl, weight: 2}\ntokenizer: ./tokenizer\nrules: [normalize]\ndedup: true\n")
    with pytest.raises(RecipeError) as error:
        prepared(recipe, tmp_path / "c")
    said = str(error.value)
    assert "corpus.yaml:4:9: rules.0" in said and "`normalise`" in said and "corpus.yaml:5:1: dedup: unknown key" in said
    project(tmp_path, texts(5), sources=[{"path": "rows.jsonl", "weight": 2}])
    with pytest.raises(RecipeError, match="a corpus keeps all of its text"):
        prepared(recipe, tmp_path / "c")
    project(tmp_path, texts(5), sources=[{"path": "rows.jsonl", "loss_weight": 2}])
    with pytest.raises(RecipeError, match=r"sources\.0\.loss_weight: a corpus keeps all of its text"):
        prepared(recipe, tmp_path / "c")
    project(tmp_path, texts(5), bad_rows="error")
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"text": 5.5}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2: "):
        prepared(recipe, tmp_path / "c")
    (tmp_path / "rows.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n')
    with pytest.raises(DataError, match="a row of turns, where raw text is needed"):
        prepared(recipe, tmp_path / "c")
    project(tmp_path, ["one", "two"], rules=["length"])
    with pytest.raises(DataError, match="no document is left"):
        prepared(recipe, tmp_path / "c")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.txt").write_text("mine")
    project(tmp_path, texts(5))
    with pytest.raises(DataError, match="is not empty"):
        prepared(recipe, tmp_path / "c")


def test_an_empty_file_among_many_is_told_and_left_out(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(4):
        (tmp_path / "in" / f"{i}.jsonl").write_text("" if i == 2 else json.dumps({"text": texts(4)[i]}) + "\n")
    (tmp_path / "in" / "4.jsonl.gz").write_bytes(gzip.compress(b""))
    recipe = project(tmp_path, [], sources=["in/*", {"path": "in", "limit": 2}], deduplicate={"near": None}, held_out=0)
    with pytest.raises(DataError, match=r"2\.jsonl: the file is empty"):
        prepared(recipe, tmp_path / "c")
    made = prepared(recipe, tmp_path / "c", overrides=["bad_rows=drop"])
    (all_of_it, some) = made.manifest["sources"]
    assert (all_of_it["read"], all_of_it["kept"], some["kept"], some["left_out_by_limit"]) == (3, 3, 2, 1)
    assert [note.rpartition("/")[2] for note in all_of_it["notes"] if "left out" in note] == ["2.jsonl: the file is empty, and left out"]


def test_a_corpus_of_another_name_may_be_prepared_beside(tmp_path, monkeypatch):
    recipe = project(tmp_path, texts(30), deduplicate={"near": None})
    monkeypatch.setattr(corpora.Interrupt, "requested", lambda self: True)
    for name in ("one", "two"):
        prepared(recipe, tmp_path / name, overrides=[f"name={name}"])
    assert sorted(path.name.split("-")[1] for path in tmp_path.glob(".preparing-*")) == ["one", "two"]
    monkeypatch.undo()
    made = prepared(recipe, tmp_path / "one", overrides=["name=one"])
    (left,) = tmp_path.glob(".preparing-*")
    left.rename(tmp_path / left.name.replace("two", "one"))  # as if the power had gone when the corpus was whole
    assert prepared(recipe, made.folder, overrides=["name=one"]).reused and not list(tmp_path.glob(".preparing-*"))


def test_a_process_that_is_killed_is_told_in_words(tmp_path, small_parts, monkeypatch):
    from concurrent.futures.process import BrokenProcessPool

    from etude.data.corpus import steps

    class Broken(steps.ProcessPoolExecutor):
        def submit(self, *arguments):
            raise BrokenProcessPool("a child process terminated abruptly")

    monkeypatch.setattr(steps, "ProcessPoolExecutor", Broken)
    recipe = project(tmp_path, texts(100), deduplicate={"near": None})
    with pytest.raises(DataError, match="perhaps for want of memory"):
        prepared(recipe, tmp_path / "c", workers=2)


def test_what_a_place_does_not_tell_is_said(tmp_path, monkeypatch):
    from etude.data import locate

    recipe = project(tmp_path, texts(5), deduplicate={"near": None}, sources=[f"file://{tmp_path}/rows.jsonl", "hub:owner/name"])
    told = {"size": None}
    monkeypatch.setattr(locate, "_info", lambda url: told)
    loaded = corpora.read_corpus_recipe(recipe).recipe
    plan = corpora.planned(loaded, tmp_path, corpora.Voice(), tmp_path)
    for told_not in ("neither a tag nor a time", "does not tell its revision"):
        assert any(told_not in note for note in plan.notes)
    assert plan.inputs[0]["bytes"] is None and plan.units[0].size == 0
    identities = [plan.identity]
    told |= {"ETag": "one"}
    for sha in ("a", "b"):
        monkeypatch.setattr(corpora, "hub_revision", lambda path, sha=sha: sha)
        plan = corpora.planned(loaded, tmp_path, corpora.Voice(), tmp_path)
        identities.append(plan.identity)
        assert not [note for note in plan.notes if "cannot be seen" in note]
    assert len(set(identities)) == 3
    from etude.data.read import read

    assert len(list(read(locate.locate(f"file://{tmp_path}/rows.jsonl")[0][0]))) == 5, "of unknown size is not empty"
