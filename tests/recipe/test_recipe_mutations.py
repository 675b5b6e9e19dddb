"""200 spoilt recipes: each loads, or every one of its problems has a place. Nothing else ever comes out."""

import random
import re
from collections.abc import Callable

import pytest
import yaml
from recipe_leaves import TABLES

from etude.errors import RecipeError
from etude.recipe.load import load

WHOLE = """\
name: reviews
base: owner/model  # a hub id
stages:
  sentiment:
    data:
      sources:
        - path: rows.jsonl
          columns: {review: text}
          where: stars > 3
          render: {system: "Be brief.", prompt: "{{ text }}", completion: '{"label": {{ label | tojson }}}'}
        - {path: "hub:owner/rows", weight: 2.5, limit: 500, split: test}
      held_out: 0.1
      context: 512
      too_long: truncate
    adapt: {kind: lora, rank: 8, alpha: 16, targets: [q_proj, v_proj]}
    objective: next-token
    train:
      epochs: 3
      learning_rate: 2e-4
      schedule: {kind: cosine, warmup: 0.1}
      clip: null
      trackers: [{kind: board, project: "é ${name}"}]
  preferred:
    parent: sentiment
    data: {sources: pairs.jsonl, held_out: other.jsonl, context: "${stages.sentiment.data.context}"}
    objective: {kind: dpo, beta: 0.2}
    train: {steps: 10, dtype: bfloat16, seed: 7}
evaluate:
  rows: 50
  metrics: [accuracy, {kind: macro-f1, field: label}]
  keep: {source: general.txt, tokens: 1000}
"""
WORDS = [
    "abc",
    "1e999",
    "-1",
    "0",
    "true",
    "null",
    "[]",
    "{}",
    "[1, [2]]",
    "{a: {b: c}}",
    "9" * 30,
    "9" * 5000,
    ".nan",
    "${name}",
    "${x.y}",
    "é",
]
ODD = [
    *"{}[]:,-#&*!|>'\"%@`\t\x07\x85\u2028\ufeff😀\\$",
    "---\n",
    "${",
    "\\ud800",
    "!!int ",
    "&a ",
    "*a",
    "<<: ",
    "? ",
    "\r\n",
    "\x00",
]


def _keys(text: str) -> list[re.Match[str]]:
    return list(re.finditer(r"[a-z_]{3,}(?=:(\s|$))", text, re.MULTILINE))


def misspelt_key(text: str, chance: random.Random) -> str:
    key = chance.choice([key for key in _keys(text) if key[0] != "review"])
    spoilt = chance.choice([key[0] + "x", key[0][:-1] + "zz", key[0].upper() + "_"])
    return text[: key.start()] + spoilt + text[key.end() :]


def wrong_type(text: str, chance: random.Random) -> str:
    value = chance.choice(list(re.finditer(r"(?<=[a-z]: )[^\s{\[][^,}\n]*", text)))
    return text[: value.start()] + chance.choice(WORDS) + text[value.end() :]


def deleted_line(text: str, chance: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    start = chance.randrange(len(lines))
    del lines[start : start + chance.randint(1, 4)]
    return "".join(lines)


def deleted_piece(text: str, chance: random.Random) -> str:
    start = chance.randrange(len(text))
    return text[:start] + text[start + chance.randint(1, 40) :]


def broken_yaml(text: str, chance: random.Random) -> str:
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text))
        text = text[:at] + chance.choice(ODD) + text[at:]
    return text


def swapped_nesting(text: str, chance: random.Random) -> str:
    """Two subtrees change places."""
    tree = yaml.safe_load(text)
    spots: list[tuple] = []

    def collect(value: object) -> None:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
            spots.append((value, key))
            collect(inner)

    collect(tree)
    (one, key), (other, name) = chance.sample(spots, 2)
    one[key], other[name] = other[name], one[key]
    try:
        return yaml.safe_dump(tree, allow_unicode=True)
    except RecursionError:
        return text


def moved_indentation(text: str, chance: random.Random) -> str:
    lines = text.splitlines()
    at = chance.randrange(len(lines))
    lines[at] = " " * chance.randint(0, 9) + lines[at].lstrip()
    return "\n".join(lines)


MUTATIONS: list[Callable[[str, random.Random], str]] = [
    misspelt_key,
    wrong_type,
    deleted_line,
    deleted_piece,
    broken_yaml,
    swapped_nesting,
    moved_indentation,
]


def problems_of(text: str) -> list[str] | None:
    """None where it loads."""
    with open("r.yaml", "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
        file.write(text)
    try:
        load("r.yaml", tables=TABLES)
    except RecipeError as error:
        return error.problems
    return None


def test_the_recipe_itself_loads(write) -> None:
    assert problems_of(WHOLE) is None


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_mutated_recipes(write, mutation: Callable[[str, random.Random], str]) -> None:
    loaded = 0
    for seed in range(30):  # 7 × 30
        chance = random.Random(f"{mutation.__name__} {seed}")
        problems = problems_of(mutation(WHOLE, chance))
        loaded += problems is None
        assert problems is None or problems, seed
        for problem in problems or ():
            assert re.fullmatch(r"r\.yaml:\d+:\d+: .+", problem), (seed, problem)
    assert loaded < 30, "such a mutation should spoil something"
    if mutation is misspelt_key:
        assert loaded == 0
