"""DoRA: a weight's direction moves by a LoRA, its magnitude by a vector. https://arxiv.org/abs/2402.09353"""

from typing import Any, ClassVar

from peft import LoraConfig
from transformers import PreTrainedModel

from etude.adaptation.lora import Lora
from etude.adaptation.peft_adapter import PeftAttached


class DoRA(Lora):
    """Closer to full tuning at low ranks, and slower: each layer's column norms are computed in every forward."""

    kind: ClassVar[str] = "dora"

    @property
    def born_of_weights(self) -> bool:
        return True

    def _config(self, model: PreTrainedModel, **variant: Any) -> LoraConfig:
        return super()._config(model, use_dora=True, **variant)

    def _on(self, model: PreTrainedModel, config: LoraConfig) -> PeftAttached:
        attached = super()._on(model, config)
        for name, magnitude in attached.trainable.items():
            if ".lora_magnitude_vector." in name:
                # peft takes the norms in the base's own type; what is learnt begins exactly where the base is.
                weight = model.get_parameter(f"{name.split('.lora_magnitude_vector.')[0]}.base_layer.weight")
                norms = weight.detach().float().norm(dim=1)
                if magnitude.shape == norms.shape:  # of a layer that holds its weight the other way round peft's own stay
                    magnitude.data = norms
        return attached
