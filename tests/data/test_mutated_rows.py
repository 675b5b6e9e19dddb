"""Two thousand spoilt rows: each is refused with its place or learnt whole; none escapes as another error, none disappears."""

import copy
import json
import random

import pytest
from chat_tokenizers import STRIPS_THOUGHTS, chat_tokenizer
from test_formats import READ

from etude.data.prepare import prepare
from etude.errors import DataError
from etude.recipe.data import Data

ODD = [
    None,
    "",
    " ",
    0,
    -1,
    1.5,
    True,
    [],
    {},
    [[]],
    "🙂",
    "\ud83d",
    "<|im_end|>",
    "x" * 3000,
    float("nan"),
    {"role": "user"},
    [{"from": 1}],
    "{",
    "[1]",
    10**30,
]
INSERTED = ["<|im_end|>", "</s>", "\x00", "\u2028", "{{", "\ud800", "\n\n", "🙂", "<think>"]


def mutated(row, random):
    """One change: a value replaced, a key dropped or renamed, a list shuffled, doubled or emptied, or the line itself spoilt."""
    row = copy.deepcopy(row)
    places = list(_places(row))
    holder, key = random.choice(places)
    kind = random.randrange(7)
    if kind == 0:
        holder[key] = random.choice(ODD)
    elif kind == 1:
        del holder[key]
    elif kind == 2 and isinstance(holder, dict):
        holder[key + random.choice("sx_ ")] = holder.pop(key)
    elif kind == 3 and isinstance(holder[key], list):
        random.shuffle(holder[key])
    elif kind == 4 and isinstance(holder[key], list):
        holder[key] = holder[key] * random.choice([0, 2, 40])
    elif kind == 5:
        line = bytearray(json.dumps(row).encode())
        at = random.randrange(len(line))
        line[at : at + random.randrange(3)] = bytes(random.randrange(256) for _ in range(random.randrange(3)))
        return bytes(line).replace(b"\n", b" ").replace(b"\r", b" ") or b"{"
    elif isinstance(holder[key], str):
        text = holder[key]
        at = random.randrange(len(text) + 1)
        holder[key] = (
            text[:at] + random.choice(["<|im_end|>", "</s>", "\x00", "\u2028", "{{", "\ud800", "\n\n", "🙂", "<think>"]) + text[at:]
        )
    else:
        holder[key] = random.choice(ODD)
    return json.dumps(row).encode()


def _places(value):
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


@pytest.mark.parametrize("part", range(4))
def test_a_mutated_row_is_refused_or_learnt_and_always_counted(tmp_path, part):
    tokenizer = chat_tokenizer(STRIPS_THOUGHTS if part % 2 else chat_tokenizer().chat_template)
    stop = tokenizer.eos_token_id
    rng, path = random.Random(part), tmp_path / "rows.jsonl"
    refused = learnt = 0
    for _ in range(500):
        name, row, _ = rng.choice(READ)
        path.write_bytes(json.dumps(row).encode() + b"\n" + mutated(row, rng) + b"\n")
        roles = {"preference": ("chosen", "rejected"), "kto": ("desirable", "undesirable")}.get(name, ())
        how = {
            "format": rng.choice(["auto", name]),
            "bad_rows": rng.choice(["error", "drop"]),
            "too_long": rng.choice(["drop", "truncate", "error"]),
        }
        source = {"path": str(path), "format": how["format"]}
        data = Data.model_validate(
            {"sources": source, "held_out": 0, "context": 128, "bad_rows": how["bad_rows"], "too_long": how["too_long"]}
        )
        try:
            prepared = prepare(data, tokenizer, roles=roles, stop_ids=frozenset({stop}), seed=0)
        except DataError as error:
            assert "rows.jsonl" in error.message and error.remedy
            refused += 1
            continue
        count = prepared.counts.sources[0]
        assert count.read == count.kept + count.left_out == 2 and count.kept == count.training == len({e.row for e in prepared.train[0][1]})
        assert len(count.dropped) == count.left_out
        learnt += count.kept - 1
        for example in prepared.train[0][1]:
            for sample in example.samples:
                assert sample.weight.any() and (len(sample) <= 128)
                if name != "text":
                    assert sample.tokens[sample.weight > 0][-1] == stop
    assert refused > 100 and learnt > 100, "both ways were really taken"
