"""Weights of a backbone with what was learned merged into them."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clipadapt.adaptations.base import Adaptation
from clipadapt.adaptations.blocks import BlockReplacement, StageReplacement
from clipadapt.adaptations.finetune import FullFinetuning
from clipadapt.backbone.attention import SplitAttention
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.rows import Prompt
from clipadapt.data.tasks import unique_names
from clipadapt.errors import UserError
from clipadapt.exports.request import Request
from clipadapt.tasks import Classifier

PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def check_weights_alone(request: Request) -> Classifier:
    """Return the head, if weights of the towers are all that was learned.

    Raises:
        UserError: something else was learned, or answers aren't cosines with the templates' class weights.
    """
    head = request.head
    if not isinstance(head, Classifier):
        raise UserError(
            "a checkpoint of both towers has no head of this kind of task: format=onnx or format=torch has it"
        )
    for part in head.adaptation.list_parts():
        own = type(part)
        plain = own.class_embeddings is Adaptation.class_embeddings and own.logits is Adaptation.logits
        if not plain or (part.state_dict() and not isinstance(part, FullFinetuning | BlockReplacement)):
            raise UserError(
                f"{own.__name__} isn't weights of the towers, which is all that a checkpoint of them can hold: "
                "format=onnx or format=torch writes the whole"
            )
    return head


def prompts_by_class(head: Classifier) -> dict[str, list[str]]:
    """Return the prompts of each class as texts, by unique names of the classes."""
    names = head.adaptation.find_names(head.class_names, head.words)
    prompts = [[each for name in own for each in head.adaptation.prompts([name])[0]] for own in names]
    texts = [[as_text(each, head.clip.tokenizer.decode) for each in own] for own in prompts]
    return dict(zip(unique_names(head.class_names), texts, strict=True))


def as_text(prompt: Prompt, decode: Callable[[Sequence[int]], str]) -> str:
    """Return a prompt as a text; one that was cut has token ids in its place."""
    return prompt if isinstance(prompt, str) else decode([piece for piece in prompt if isinstance(piece, int)])


def merge(clip: DualEncoder, adaptation: Adaptation) -> dict[str, Tensor]:
    """Return all weights of a backbone's model, by name, with those that were learned in their places.

    Raises:
        UserError: what was put into blocks isn't a change of their weights.
    """
    state = {name: value.detach().clone() for name, value in clip.model.state_dict().items()}
    for part in adaptation.list_parts():
        if isinstance(part, FullFinetuning):
            state |= {name.replace("/", "."): value.detach() for name, value in part.named_parameters()}
        elif isinstance(part, BlockReplacement):
            merge_blocks(clip, part, state)
    return state


def merge_blocks(clip: DualEncoder, part: StageReplacement, state: dict[str, Tensor]) -> None:
    """Write the merged weights of replaced blocks to a model's state."""
    names = {id(weight): name for name, weight in clip.model.named_parameters()}
    for tower in clip.towers:
        for point, replacement in part.stages(tower).items():
            merged = merged_weights(replacement)
            own = {name: names[id(weight)] for name, weight in clip.tower(tower).blocks[point].named_parameters()}
            if merged.keys() != own.keys():
                extra = min({*merged} ^ {*own})
                raise UserError(
                    f"what was learned in {tower}.{point} ({extra}) can't be merged into the block's weights"
                )
            state |= {own[name]: value for name, value in merged.items()}


def merged_weights(block: Any) -> dict[str, Tensor]:
    """Return the weights of a block by the names of a block with an `nn.MultiheadAttention`."""
    found: dict[str, Tensor] = {}
    for name, module in block.named_children():
        if isinstance(module, SplitAttention):
            layers = [merged_layer(getattr(module, each)) for each in PROJECTIONS]
            for kind in ("weight", "bias"):
                found[f"attn.in_proj_{kind}"] = torch.cat([layer[kind] for layer in layers])
            found |= {f"attn.out_proj.{key}": value for key, value in merged_layer(module.out_proj).items()}
        else:
            found |= {f"{name}.{key}": value for key, value in merged_module(module).items()}
    return found


def merged_module(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a module by name, those of layers with an adapter merged."""
    if hasattr(module, "get_base_layer"):
        return merged_layer(module)
    own = {name: value.detach() for name, value in module.named_parameters(recurse=False)}
    for name, child in module.named_children():
        own |= {f"{name}.{key}": value for key, value in merged_module(child).items()}
    return own


def merged_layer(layer: Any) -> dict[str, Tensor]:
    """Return weight and bias of a layer, with its adapter of peft merged if it has one.

    Raises:
        UserError: the adapter isn't a change of the weight.
    """
    if not hasattr(layer, "get_base_layer"):
        return {name: value.detach() for name, value in layer.named_parameters()}
    if not hasattr(layer, "merge"):
        raise UserError(f"{type(layer).__name__} of peft can't be merged into weights: format=peft writes it as it is")
    own = copy.deepcopy(layer)  # merging writes into the frozen weights
    own.merge()
    return {name: value.detach() for name, value in own.get_base_layer().named_parameters()}
