"""For every test: one thread a process, a hypothesis that finds the same examples each time, and tiny real models."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import tiny
import torch
from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("same")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread():
    """Sums depend on the number of threads in their last bits; a test that changes it leaves nothing behind."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def llama():
    """A Llama of two layers under etude's attention. Whoever trains takes a copy: `tiny.copy_of(llama)`."""
    return tiny.llama()


@pytest.fixture(scope="session")
def moved(llama):
    """A policy that has left its parent, so that margins are not zero."""
    policy = tiny.copy_of(llama)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=generator))
    return policy
