"""How does a model continue prompts? In batches, with what all prompts begin with computed once.

Every batch goes the same way: the shared beginning's keys and values are copied to each row, the rests are read right-padded,
the padding is then moved to the left of each row (so distances in the cache are distances in the text, as windows and ALiBi
need), and all rows take one step at a time, the first with their prompt's last token. A row that has ended leaves the batch.
"""

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, PreTrainedModel

from etude.errors import ModelError
from etude.model.cache import copied, empty_cache, move_padding_left, why_not_shared
from etude.model.virtual import ahead_of, begin_cache

_say = logging.getLogger(__name__).warning


@dataclass(frozen=True, slots=True)
class Generated:
    """One continuation."""

    tokens: list[int]
    """What was written, without the token that stopped it."""
    stop: int | None
    """The token that ended it, or None where the limit of new tokens or the model's context cut it."""

    @property
    def stopped(self) -> bool:
        """Whether the model ended by itself."""
        return self.stop is not None


@dataclass(frozen=True, slots=True, eq=False)
class _Sampling:
    """How the next token is drawn. The same prompt at the same place draws alike in any batch."""

    temperature: float
    top_p: float
    uniform: Tensor
    """[prompts, new tokens] one number in [0, 1) for each draw; empty where the most likely token is taken."""

    @classmethod
    def of(cls, prompts: int, new_tokens: int, temperature: float, top_p: float, seed: int) -> "_Sampling":
        if temperature < 0 or not 0 < top_p <= 1:
            raise ValueError(f"temperature must be at least 0 and top_p in (0, 1]: {temperature}, {top_p}")
        shape = (prompts, new_tokens) if temperature else (0, 0)
        return cls(temperature, top_p, torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))

    def choose(self, logits: Tensor, rows: Tensor, step: int) -> Tensor:
        """[B, vocabulary] → [B]: the most likely token at temperature 0, else one drawn from the nucleus of mass `top_p`."""
        if self.temperature == 0:
            return logits.argmax(-1)
        precise = torch.float32 if logits.device.type == "mps" else torch.float64  # MPS has no float64
        mass, token = (logits.to(precise) / self.temperature).softmax(-1), None
        if self.top_p < 1:
            mass, token = mass.sort(-1, descending=True)
            mass = mass.where(mass.cumsum(-1) - mass < self.top_p, 0.0)
        total = mass.cumsum(-1)
        drawn = self.uniform[rows, step].to(logits.device, precise)[:, None] * total[:, -1:]
        index = torch.searchsorted(total, drawn, right=True).clamp(max=logits.shape[-1] - 1)  # [B, 1]
        return (index if token is None else token.gather(-1, index)).squeeze(-1)


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: Set[int],
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    top_p: float = 1.0,
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = _say,
) -> list[Generated]:
    """Continue every prompt; the answers come in the order of the prompts.

    The distribution is the model's own: no repetition penalty or other processor of its generation config is applied.

    Args:
        prompts: token ids, special tokens included, at least one each.
        stop_ids: tokens that end an answer.
        max_new_tokens: longest answer, the stop token counted.
        temperature: 0 takes the most likely token.
        seed: of the draws; the i-th prompt draws the same numbers in any batch (except where a recurrent state keeps it from sharing).
        top_p: draw only from the likeliest tokens that together have this probability. https://arxiv.org/abs/1904.09751
        batch_tokens: most tokens held in the cache at once (prompts and answers together); one longer row runs alone.
        progress: called with (answers finished, answers in all).
        say: told what a user should know: a slower way, answers cut by the model's context.

    Raises:
        ModelError: a prompt is empty or fills the model's context.
    """
    own = [list(map(int, prompt)) for prompt in prompts]
    limits = _limits(model, own, max_new_tokens, say)
    sampling = _Sampling.of(len(prompts), max_new_tokens, temperature, top_p, seed)
    written: list[list[int]] = [[] for _ in prompts]
    stops: dict[int, int | None] = {}  # of each prompt whose answer has ended
    for row, token, last in _tokens(model, own, limits, stop_ids, sampling, batch_tokens, seed, say):
        if token not in stop_ids:
            written[row].append(token)
        if last:
            stops[row] = token if token in stop_ids else None
            if progress is not None:
                progress(len(stops), len(prompts))
    return [Generated(tokens, stops[row]) for row, tokens in enumerate(written)]


def stream(
    model: PreTrainedModel,
    prompt: Sequence[int],
    *,
    stop_ids: Set[int],
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    top_p: float = 1.0,
    say: Callable[[str], None] = _say,
) -> Iterator[int]:
    """The tokens of one answer as they come, without the one that stops it; arguments as in `generate`.

    A model that keeps a recurrent state is asked for the whole answer first.
    """
    prompts = [list(map(int, prompt))]
    limits = _limits(model, prompts, max_new_tokens, say)
    sampling = _Sampling.of(1, max_new_tokens, temperature, top_p, seed)
    for _, token, _ in _tokens(model, prompts, limits, stop_ids, sampling, 1, seed, say):
        if token not in stop_ids:
            yield token


def _limits(model: PreTrainedModel, prompts: list[list[int]], new_tokens: int, say: Callable[[str], None]) -> list[int]:
    """The most new tokens for each prompt: `new_tokens`, or what the model's context leaves."""
    context = (getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None) or 2**31) - ahead_of(model)
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise ModelError(f"prompt {row + 1} has no tokens", "leave out empty prompts")
        if len(prompt) >= context:
            raise ModelError(f"prompt {row + 1} has {len(prompt)} tokens; the model reads {context}, the answer counted", "shorten it")
    limits = [min(new_tokens, context - len(prompt)) for prompt in prompts]
    if cut := sum(limit < new_tokens for limit in limits):
        say(f"{cut} of {len(prompts)} prompts leave less than {new_tokens} tokens of the model's context ({context}) for the answer")
    return limits


def _tokens(
    model: PreTrainedModel,
    prompts: list[list[int]],
    limits: list[int],
    stop_ids: Set[int],
    sampling: _Sampling,
    batch_tokens: int,
    seed: int,
    say: Callable[[str], None],
) -> Iterator[tuple[int, int, bool]]:
    """(prompt, token, whether it is the last of its answer), in the order in which they are computed."""
    if not prompts:
        return
    order = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), row))
    with _evaluating(model):
        if reason := why_not_shared(model):
            say(f"{type(model).__name__} writes without a shared beginning, equal lengths together: {reason}")
            for _, group in groupby(order, key=lambda row: len(prompts[row])):
                for rows in _batches(list(group), prompts, limits, batch_tokens):
                    yield from _by_transformers(model, rows, prompts, limits[rows[0]], stop_ids, sampling, seed)
            return
        beginning, shared = _beginning(model, prompts)
        for rows in _batches(order, prompts, limits, batch_tokens):
            yield from _decode(model, copied(beginning, len(rows)), shared, rows, prompts, limits, stop_ids, sampling)


def _batches(order: list[int], prompts: list[list[int]], limits: list[int], batch_tokens: int) -> Iterator[list[int]]:
    """Cut rows, sorted by length, so that rows × (longest prompt + answer) stays within `batch_tokens`."""
    batch: list[int] = []
    for row in order:
        if batch and (len(batch) + 1) * (len(prompts[row]) + max(limits[row], limits[batch[0]])) > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Dropout off, and activation checkpointing, which would switch the cache off."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@torch.no_grad()
def _beginning(model: PreTrainedModel, prompts: list[list[int]]) -> tuple[DynamicCache, int]:
    """What all prompts begin with, read once, as a cache of one row, and its length.

    The last token of every prompt is always left over: it is the first step of its answer.
    """
    first, last = min(prompts), max(prompts)  # in dictionary order: what these two share, all share
    most = min(len(prompt) for prompt in prompts) - 1
    length = min(most, next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), most))
    cache, ahead = empty_cache(model), ahead_of(model)
    begin_cache(model, cache)
    if length:
        tokens = torch.tensor([prompts[0][:length]], device=model.device)  # [1, P]
        _forward(
            model, cache, tokens, tokens.new_ones(1, ahead + length), ahead + torch.arange(length, device=model.device)[None], logits=False
        )
    return cache, length


def _forward(model: PreTrainedModel, cache: DynamicCache, tokens: Tensor, mask: Tensor, position: Tensor, *, logits: bool) -> Tensor:
    """Append `tokens` [B, L] to the cache; the logits of the last of them, [B, vocabulary] (none computed where not wanted)."""
    accepted = inspect.signature(model.forward).parameters
    # Families without position_ids (ALiBi) take positions from the mask.
    options: dict[str, object] = {"position_ids": position} if "position_ids" in accepted else {}
    if "logits_to_keep" in accepted:
        options["logits_to_keep"] = 1 if logits else torch.empty(0, dtype=torch.int64, device=tokens.device)
    output = model(input_ids=tokens, attention_mask=mask, past_key_values=cache, use_cache=True, **options)
    return output.logits[:, -1] if logits else output.logits


@torch.no_grad()
def _decode(
    model: PreTrainedModel,
    cache: DynamicCache,
    shared: int,
    rows: list[int],
    prompts: list[list[int]],
    limits: list[int],
    stop_ids: Set[int],
    sampling: _Sampling,
) -> Iterator[tuple[int, int, bool]]:
    """One batch, as `_tokens`; `cache` holds the first `shared` tokens of each row behind the virtual ones. Rows that ended leave it."""
    device, held = model.device, ahead_of(model) + shared
    rest = [prompts[row][shared:-1] for row in rows]
    width = max(len(tokens) for tokens in rest)
    padding = torch.tensor([width - len(tokens) for tokens in rest], device=device)  # [B]
    if width:
        tokens = torch.tensor([tokens + [0] * (width - len(tokens)) for tokens in rest], device=device)  # [B, R] right-padded
        mask = (torch.arange(held + width, device=device) < held + width - padding[:, None]).long()  # [B, P + R]
        position = torch.arange(held, held + width, device=device).expand(len(rows), -1)  # [B, R]
        _forward(model, cache, tokens, mask, position, logits=False)
        move_padding_left(cache, padding)
    mask = (torch.arange(held + width, device=device) >= padding[:, None]).long()  # [B, P + R] left-padded
    token = torch.tensor([prompts[row][-1] for row in rows], device=device)  # [B]
    for step in range(max(limits[row] for row in rows)):
        mask = torch.cat((mask, mask.new_ones(len(rows), 1)), dim=1)
        position = held + width - padding + step  # [B]
        logits = _forward(model, cache, token[:, None], mask, position[:, None], logits=True)
        token = sampling.choose(logits, torch.tensor(rows), step)
        chosen = token.tolist()
        last = [t in stop_ids or step + 1 == limits[row] for row, t in zip(rows, chosen, strict=True)]
        yield from zip(rows, chosen, last, strict=True)
        if all(last):
            return
        if any(last):
            staying = torch.tensor([i for i, ended in enumerate(last) if not ended], device=device)
            cache.batch_select_indices(staying)
            mask, padding, token = mask[staying], padding[staying], token[staying]
            rows = [rows[i] for i in staying.tolist()]


@torch.no_grad()
def _by_transformers(
    model: PreTrainedModel,
    rows: list[int],
    prompts: list[list[int]],
    limit: int,
    stop_ids: Set[int],
    sampling: _Sampling,
    seed: int,
) -> Iterator[tuple[int, int, bool]]:
    """Rows of one length through `model.generate`, as `_tokens`."""
    tokens = torch.tensor([prompts[row] for row in rows], device=model.device)  # [B, L]
    drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0} if sampling.temperature else {}
    ends = {"eos_token_id": sorted(stop_ids)} if stop_ids else {}
    own, model.generation_config = model.generation_config, GenerationConfig()  # its defaults would fill whatever is not said here
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed + rows[0])
            settings = GenerationConfig(max_new_tokens=limit, pad_token_id=min(stop_ids, default=0), **ends, **drawn)
            output = model.generate(tokens, attention_mask=torch.ones_like(tokens), generation_config=settings)  # type: ignore[not-callable]
    finally:
        model.generation_config = own
    for row, answer in zip(rows, output[:, tokens.shape[1] :].tolist(), strict=True):
        end = next((i for i, token in enumerate(answer) if token in stop_ids), len(answer) - 1)
        yield from ((row, token, i == end) for i, token in enumerate(answer[: end + 1]))
