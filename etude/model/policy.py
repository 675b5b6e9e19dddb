"""A language model as the engine sees it: forest in, scores out, one forward."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from etude.core.forest import Forest
from etude.core.scores import Scores
from etude.errors import ModelError
from etude.model import attention
from etude.model.attention import ForestAttention
from etude.model.head import Shape, all_readings, log_probabilities
from etude.model.outputs import read_outputs
from etude.model.taught import Distributions, Teaching, TopK, taught
from etude.model.virtual import VirtualTokens, virtual_of


@dataclass(slots=True)
class Counts:
    """What the policy had to do otherwise than fast; shown at the end of a run."""

    slower: dict[str, int] = field(default_factory=dict)
    """Forwards in which the fused kernel could not serve, by the reason."""


class Policy(nn.Module):
    """Trunk and head under one forward.

    Args:
        model: a transformers causal language model; adapters may be inside.
        layout: `forest`, or `padded` for models whose layers cannot tell a forest's branches apart.
        compute: the type in which matrices are multiplied. Weights of another type (float32 masters) are converted on
            the way; a model that is held in `compute` already runs as it is.
    """

    def __init__(self, model: PreTrainedModel, *, layout: str = "forest", compute: torch.dtype = torch.float32):
        super().__init__()
        if layout == "forest" and model.config._attn_implementation != attention.NAME:
            chosen = model.config._attn_implementation
            raise ValueError(f"a forest under {chosen!r} attention would be silently wrong; load the model with {attention.NAME!r}")
        self.model, self.layout, self.compute = model, layout, compute
        self.shape = Shape.of(model.config.get_text_config())
        self.counts = Counts()

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def head(self) -> nn.Module:
        head = self.model.get_output_embeddings()
        assert head is not None, "a causal language model has a head"
        return head

    def check(self) -> None:
        """Refuse what could not run.

        Raises:
            ModelError: keys and values were learnt for a model in which not every layer would read them.
        """
        virtual = virtual_of(self.model)
        if self.layout != "forest" and virtual is not None and virtual.embeddings() is None:
            raise ModelError(f"{type(self.model).__name__} has layers that no prefix reaches", "take `prompt` or `lora`")

    def forward(
        self,
        forest: Forest,
        coefficients: Tensor | None = None,
        *,
        everything: bool = False,
        outputs: str | None = None,
        teacher: tuple[Distributions | TopK, Teaching] | None = None,
    ) -> Scores:
        """Score the forest's predictions, or its leaves.

        Args:
            coefficients: [N] see `Objective.coefficients`.
            everything: whether more than log-probabilities is read.
            outputs: where the linear head that the model carries is read, see `Outputs.at`; at leaves the vocabulary's is not.
            teacher: what it says of this forest, and how the policy is compared with it.
        """
        if outputs == "leaf":
            states = self.hidden(forest, forest.leaf)
            return Scores(states.new_zeros(0), outputs=read_outputs(self.model, states))
        states = self.hidden(forest)
        if teacher is not None:
            likelihood, apart = taught(states, self.head, forest.target, self.shape, *teacher)
            return Scores(likelihood, divergence=apart)
        said = read_outputs(self.model, states) if outputs == "source" else None
        if everything:
            return Scores(*all_readings(states, self.head, forest.target, self.shape), outputs=said)
        return Scores(log_probabilities(states, self.head, forest.target, self.shape, coefficients), outputs=said)

    def hidden(self, forest: Forest, at: Tensor | None = None) -> Tensor:
        """[N, hidden size] the final states in the compute type, from which the forest's predictions are made, or at the tokens `at`."""
        at = forest.source if at is None else at
        with self._autocast():
            states = self._along_forest(forest, at) if self.layout == "forest" else self._along_lines(forest, at)
        return states.to(self.compute)

    def _along_forest(self, forest: Forest, at: Tensor) -> Tensor:
        virtual = virtual_of(self.model)
        position, read = forest.position, {"input_ids": forest.tokens[None]}
        if virtual is None:
            along = ForestAttention.of(forest)
        elif (prefix := virtual.keys_values()) is not None:
            behind = forest.behind(virtual.count)
            along, position = ForestAttention.of(behind, prefix), behind.position[virtual.count :]
        else:
            behind = forest.behind(virtual.count)
            along, position, at = ForestAttention.of(behind), behind.position, at + virtual.count
            read = {"inputs_embeds": self._embedded(virtual, forest.tokens[None])}
        # A mask of four dimensions is what transformers passes on untouched; ours reads the forest instead.
        untouched = torch.zeros(1, 1, 1, 1, device=self.device)
        output = self.model.base_model(position_ids=position[None], attention_mask=untouched, forest=along, use_cache=False, **read)
        for reason in along.slower:
            self.counts.slower[reason] = self.counts.slower.get(reason, 0) + 1
        return output.last_hidden_state[0, at]

    def _embedded(self, virtual: VirtualTokens, tokens: Tensor) -> Tensor:
        """[B, T] → [B, P + T, hidden size], the virtual tokens before every line."""
        real, learnt = self.model.get_input_embeddings()(tokens), virtual.embeddings()
        assert learnt is not None, "either embeddings or keys and values are learnt"
        return torch.cat((learnt.to(real.dtype).expand(len(tokens), -1, -1), real), 1)

    def _along_lines(self, forest: Forest, at: Tensor) -> Tensor:
        """Right-padded lines of one path each: exact for every decoder, because nothing real comes after the padding."""
        nodes = forest.nodes
        assert forest.single_paths, "a padded layout is built without sharing"
        width = max(node.stop - node.start for node in nodes)
        tokens = forest.tokens.new_zeros(len(nodes), width)
        seen = torch.zeros_like(tokens)
        lines = torch.repeat_interleave(torch.arange(len(nodes)), torch.tensor([n.stop - n.start for n in nodes])).to(tokens.device)  # [T]
        tokens[lines, forest.position] = forest.tokens
        seen[lines, forest.position] = 1
        virtual, ahead, read = virtual_of(self.model), 0, {"input_ids": tokens}
        if virtual is not None:
            self.check()
            ahead, read = virtual.count, {"inputs_embeds": self._embedded(virtual, tokens)}
            seen = torch.cat((seen.new_ones(len(nodes), ahead), seen), 1)
        output = self.model.base_model(attention_mask=seen, use_cache=False, **read)
        return output.last_hidden_state[lines[at], forest.position[at] + ahead]

    def _autocast(self) -> AbstractContextManager:
        """Only where the weights are masters of another type; a base held in the compute type runs as it is."""
        return nullcontext() if self.model.dtype == self.compute else torch.autocast(self.device.type, self.compute)
