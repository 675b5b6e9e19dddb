"""Weight decay towards the parent: what was learnt is let go, what was known is not. https://arxiv.org/abs/1802.01483"""

import math

import torch
from torch import Tensor, nn

from etude.adaptation.contract import Attached
from etude.recipe.schema import Train


class Anchors:
    """What is pulled back to where it was in the parent.

    Made of a newborn adaptation, before anything is restored. The paper adds alpha/2 · ‖w − w₀‖² to the loss; here, as in AdamW, the pull
    is taken off the weights themselves, before the step: w ← w − rate · weight_decay · (w − w₀).
    """

    def __init__(self, attached: Attached, train: Train):
        """Raises TrainingError where the newborn adaptation is not its parent."""
        self.origins: dict[str, Tensor] = {}
        if train.decay_to == "parent":
            found = {name: attached.origin(name) for name in attached.trainable if name not in attached.newborn}
            self.origins = {name: origin for name, origin in found.items() if origin is not None}
        self.parameters = {name: attached.trainable[name] for name in self.origins}
        kept = set(map(id, attached.origins.values()))
        self.copied = sum(origin.nbytes for origin in self.origins.values() if id(origin) not in kept)
        self.decay = train.weight_decay

    def pull(self, optimizer: torch.optim.Optimizer) -> None:
        """Before every step of `optimizer`, at its own rate; its own decay must leave these parameters alone."""
        if self.origins:
            optimizer.register_step_pre_hook(self._pull)

    @torch.no_grad()
    def _pull(self, optimizer: torch.optim.Optimizer, _args: object, _more: object) -> None:
        names: dict[nn.Parameter, str] = {p: name for name, p in self.parameters.items()}
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p in names:
                    p.lerp_(self.origins[names[p]], group["lr"] * self.decay)

    def sentence(self) -> str:
        """What is pulled, and what the copy of where it goes takes."""
        if not self.origins:
            return "decay to the parent is decay to zero here: what changes is zero in the parent"
        return f"decay pulls {len(self.origins):,} tensors back to the parent, of which a copy takes {self.copied / 2**20:,.1f} MiB"

    def distance(self) -> float | None:
        """‖w − w₀‖ / ‖w₀‖ over all that is pulled; None where nothing is, or where it was nothing."""
        with torch.no_grad():
            apart = sum(float((p - self.origins[name]).double().square().sum()) for name, p in self.parameters.items())
        size = sum(float(origin.double().square().sum()) for origin in self.origins.values())
        return math.sqrt(apart / size) if size else None
