"""format=transformers: a folder for `CLIPModel.from_pretrained`, with what was learned merged into the weights."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.open_clip import CLIP
from clipadapt.errors import UserError
from clipadapt.exports.merged import check_weights_alone, merge, prompts_by_class
from clipadapt.exports.preprocessing import dump
from clipadapt.exports.request import Request, Written, as_user_error, quiet
from clipadapt.tasks import Classifier

PROMPTS, PREPROCESS = "prompts.json", "preprocess.json"
OUTSIDE = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
}
"""Weights outside of blocks, by open_clip's name."""

INSIDE = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
"""Layers of a block, by open_clip's name."""

TRANSPOSED = ("text_projection", "visual.proj")


def write(request: Request, folder: Path) -> Written:
    """Write `config.json`, `model.safetensors`, and the prompts of the classes.

    Raises:
        UserError: CLIPModel has no such architecture, or something else than weights of the towers was learned.
    """
    from transformers import CLIPModel  # takes seconds to import

    head = check_weights_alone(request)
    clip = head.clip
    weights = rename(merge(clip, head.adaptation), clip) if isinstance(clip, CLIP) else {}
    if not weights:
        raise UserError(
            f"transformers' CLIPModel has no towers like those of {clip.source['name']}: take format=open_clip"
        )
    with quiet(), as_user_error("transformers' CLIPModel can't hold these weights"):
        model = CLIPModel(configuration(clip))
        model.load_state_dict(weights, strict=True)
        model.save_pretrained(folder)
        loaded = CLIPModel.from_pretrained(folder).eval()
    (folder / PROMPTS).write_text(json.dumps(prompts_by_class(head), indent=2) + "\n")
    (folder / PREPROCESS).write_text(dump(request.predictor))
    compared = request.compare(lambda pixels: answer(loaded, head, pixels))
    return Written(compared, (f"CLIPModel.from_pretrained loads it; {PROMPTS} has the sentences of each class",))


def rename(state: dict[str, Tensor], clip: DualEncoder) -> dict[str, Tensor]:
    """Return weights by transformers' names; none if one of them has no place in a CLIPModel."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        block = re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)", name)
        attention = re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", name)
        if name in OUTSIDE:
            found[OUTSIDE[name]] = (value.T if name in TRANSPOSED else value).contiguous()
        elif attention:
            place = layer_name(attention[1], attention[2])
            for key, part in zip("qkv", value.chunk(3), strict=True):
                found[f"{place}.self_attn.{key}_proj.{attention[3]}"] = part.contiguous()
        elif block and block[3] in INSIDE:
            found[f"{layer_name(block[1], block[2])}.{INSIDE[block[3]]}.{block[4]}"] = value
        else:
            return {}
    return found if len({*OUTSIDE.values()} - {*found}) == 0 else {}


def layer_name(visual: str | None, number: str) -> str:
    """Return transformers' name of a block."""
    return f"{'vision' if visual else 'text'}_model.encoder.layers.{number}"


def configuration(clip: DualEncoder) -> Any:
    """Return transformers' configuration of a backbone's model."""
    from transformers import CLIPConfig

    model = clip.model
    quick = any(type(module).__name__ == "QuickGELU" for module in model.modules())
    texts, images = model.transformer.resblocks, model.visual.transformer.resblocks
    shared = {"projection_dim": clip.width, "hidden_act": "quick_gelu" if quick else "gelu"}
    text = {"vocab_size": len(model.token_embedding.weight), "max_position_embeddings": len(model.positional_embedding)}
    text |= {"bos_token_id": clip.tokenizer.start[0], "eos_token_id": clip.tokenizer.end[0]}
    vision = {"image_size": clip.image_size[0], "patch_size": model.visual.conv1.kernel_size[0]}
    return CLIPConfig(
        text_config={**shared, **sizes(texts), **text},
        vision_config={**shared, **sizes(images), **vision},
        projection_dim=clip.width,
    )


def sizes(blocks: Any) -> dict[str, int]:
    """Return the sizes of a tower's blocks, by transformers' names."""
    first = blocks[0]
    return {
        "num_hidden_layers": len(blocks),
        "hidden_size": first.attn.embed_dim,
        "num_attention_heads": first.attn.num_heads,
        "intermediate_size": first.mlp.c_fc.out_features,
    }


def answer(model: Any, head: Classifier, pixels: Tensor) -> Tensor:
    """Return probabilities `[B, C]` of a CLIPModel with the prompts of the classes."""
    rows = []
    for prompts in prompts_by_class(head).values():
        sequences = [head.clip.tokenizer.sequence(prompt) for prompt in prompts]
        longest = max(map(len, sequences))
        ids = torch.tensor([[*sequence, *[0] * (longest - len(sequence))] for sequence in sequences])
        found = model(input_ids=ids, pixel_values=pixels)
        rows.append(functional.normalize(found.text_embeds.mean(dim=0), dim=-1))
    scale = model.logit_scale.exp()
    return (scale * found.image_embeds @ torch.stack(rows).T).softmax(-1)
