"""Rows and likelihoods that the tests of judging share."""

import json

import numpy as np

from etude.evaluation.measured import Likelihoods

HOSTILE = "<script>alert('row')</script><img src=http://example.com/x onerror=alert(1)> \"quoted\" & | *starred*"
ROWS = 60


def sentiment(label: str) -> str:
    return json.dumps({"sentiment": label})


def likelihoods(shift: float, n: int = 40, seed: int = 0) -> Likelihoods:
    """Texts of which each token costs the tuned model about `shift` nats more than its parent."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(80, 160, n)
    parent = generator.normal(2.6, 0.3, n) * tokens
    moved = generator.normal(shift, 0.02, n) * tokens
    return Likelihoods(parent, parent + moved, tokens, bytes=tokens * 4, divergence=np.abs(moved))
