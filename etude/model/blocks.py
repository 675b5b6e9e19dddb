"""A decoder's blocks: the regions that are compiled one by one, so that one graph serves them all."""

from transformers import PreTrainedModel


def compile_blocks(model: PreTrainedModel) -> str:
    """torch.compile for each block; returns a sentence for the user."""
    names = set(model._no_split_modules or ())
    blocks = [module for module in model.modules() if type(module).__name__ in names]
    for block in blocks:
        block.compile(dynamic=True)
    return f"{len(blocks)} blocks will be compiled at their first use" if blocks else "nothing was compiled: the model names no blocks"
