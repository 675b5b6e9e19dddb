"""The pieces of a corpus's preparation: duplicates against brute force, questions against plain search."""

import random

import numpy as np
import pytest

from etude.data.corpus.duplicates import Signer, equal, joined
from etude.data.corpus.overlap import Questions, too_short
from etude.data.corpus.tokenise import held_out
from etude.data.ngrams import grams, numbers, words
from etude.data.questions import Question
from etude.recipe.corpus import Near, Overlap

VOCABULARY = [f"word{i}" for i in range(3000)]


def some_texts(count, seed=0, length=150):
    draw = random.Random(seed)
    return [" ".join(draw.choices(VOCABULARY, k=length)) for _ in range(count)]


def edited(text, share, draw):
    return " ".join("changed" if draw.random() < share else word for word in text.split())


def shingles(text):
    found = words(text)
    return {tuple(found[i : i + 5]) for i in range(len(found) - 4)}


def test_near_duplicates_against_every_pair():
    pytest.importorskip("rensa")
    draw = random.Random(1)
    texts = some_texts(150)
    texts += [edited(texts[i], share, draw) for i in range(30) for share in (0.005, 0.02, 0.05, 0.2)]
    keys = Signer(Near()).sign(texts)
    sets = [shingles(text) for text in texts]
    found = {(i, j) for b in range(14) for i in range(len(texts)) for j in range(i) if keys[i, b] == keys[j, b]}
    similar = {(i, j): len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for i in range(len(texts)) for j in range(i)}
    surely, hardly = [pair for pair, s in similar.items() if s > 0.85], [pair for pair, s in similar.items() if s < 0.3]
    assert len(surely) > 20 and len([pair for pair in surely if pair in found]) / len(surely) > 0.95
    assert len(hardly) > 1000 and not [pair for pair in hardly if pair in found]
    expected = 1 - (1 - np.array([similar[pair] for pair in surely]) ** 8) ** 14
    assert abs(np.mean([pair in found for pair in surely]) - expected.mean()) < 0.1, "as the method promises"


def test_signatures_do_not_depend_on_company():
    pytest.importorskip("rensa")
    texts = [*some_texts(20), "short", "", "one two three four five"]
    signer = Signer(Near())
    together = signer.sign(texts)
    assert (together == np.concatenate([signer.sign([text]) for text in texts])).all()
    assert not together[20:22].any() and together[22].all()
    assert (signer.sign(["One, two; THREE four... five!"]) == together[22]).all()


def test_equal_and_joined_against_dictionaries():
    draw = np.random.default_rng(3)
    keys = draw.integers(0, 6, (300, 2)).astype(np.uint64)
    first: dict = {}
    expected = [i if not key.any() else first.setdefault(tuple(key), i) for i, key in enumerate(keys)]
    assert equal(keys).tolist() == expected
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(range(300))
    groups = [equal(draw.integers(1, 200, (300, 1)).astype(np.uint64)) for _ in range(3)]
    for group in groups:
        graph.add_edges_from(enumerate(group.tolist()))
    clusters = {member: min(cluster) for cluster in networkx.connected_components(graph) for member in cluster}
    assert joined(iter(groups), 300).tolist() == [clusters[i] for i in range(300)]


def test_sequences_of_words_are_told_apart():
    found = words("to be or not to be, that is the question: to be or not to be")
    three = grams(numbers(found), 3)
    assert len(three) == len(found) - 2 and len(set(three.tolist())) == len({tuple(found[i : i + 3]) for i in range(len(found) - 2)})
    assert len(grams(numbers(["one"]), 2)) == 0


def test_planted_questions_are_found_and_others_not():
    draw = random.Random(5)
    long = [" ".join(draw.choices(VOCABULARY, k=draw.randint(13, 40))) + "?" for _ in range(100)]
    middle = [" ".join(draw.choices(VOCABULARY, k=draw.randint(8, 12))) for _ in range(50)]
    short = [" ".join(draw.choices(VOCABULARY, k=draw.randint(4, 7))) for _ in range(50)]
    blind = ["Is it so?"] * 3
    asked = [Question("b", "b.jsonl", i, text) for i, text in enumerate([*long, *middle, *short, *blind])]
    questions = Questions(asked, Overlap())
    assert sum(too_short(question, Overlap()) for question in asked) == 3
    texts = some_texts(200, seed=6)
    for question in asked[:200]:
        said = question.text.upper().replace(" ", ",  ", 2)
        held = questions.held_in(f"{texts[question.row]} {said} {texts[0]}")
        assert held is not None and held.question.row == question.row
    for question in asked[:100]:
        part = " ".join(question.text.split()[:13])
        assert questions.held_in(f"{texts[0]} {part} {texts[1]}").by == 13
        assert questions.held_in(f"{texts[0]} {' '.join(question.text.split()[:12])} {texts[1]}") is None
    for question in asked[150:200]:
        assert questions.held_in(f"{texts[0]} {' '.join(question.text.split()[:-1])} xyz") is None, "the whole question, or none"
    assert not [text for text in texts if questions.held_in(text)]
    assert questions.held_in("Is it so?") is None


def test_held_out_by_content():
    keys = np.random.default_rng(0).integers(0, 2**63, (20000, 2)).astype(np.uint64) * np.uint64(2)
    apart = held_out(keys, 0.05)
    assert 0.045 < apart.mean() < 0.055
    assert (held_out(keys, 0.1) | ~apart).all(), "a larger share holds the smaller one"
    assert not held_out(keys, 0.0).any()
