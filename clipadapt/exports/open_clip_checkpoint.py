"""format=open_clip: a checkpoint of both towers that open_clip loads, with what was learned merged into the weights."""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from clipadapt.backbone import tiny
from clipadapt.backbone.open_clip import CLIP
from clipadapt.errors import UserError
from clipadapt.exports.merged import check_weights_alone, merge, prompts_by_class
from clipadapt.exports.preprocessing import describe
from clipadapt.exports.request import Request, Written, as_user_error, quiet
from clipadapt.tasks import Classifier

WEIGHTS, CONFIG, PROMPTS = "open_clip_model.safetensors", "open_clip_config.json", "prompts.json"


def write(request: Request, folder: Path) -> Written:
    """Write weights, open_clip's config of the model, and the prompts of the classes.

    Raises:
        UserError: the backbone isn't open_clip's, or something else than weights of the towers was learned.
    """
    head = check_weights_alone(request)
    clip = head.clip
    if not isinstance(clip, CLIP):
        raise UserError(f"format=open_clip is for backbones of open_clip, and {clip.source['name']} is none")
    weights = {name: value.contiguous() for name, value in merge(clip, head.adaptation).items()}
    config = model_config(clip)
    save_file(weights, folder / WEIGHTS, metadata=describe(request.predictor))
    preprocess = {**clip.preprocess, "size": list(clip.image_size)}
    (folder / CONFIG).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=2) + "\n")
    (folder / PROMPTS).write_text(json.dumps(prompts_by_class(head), indent=2) + "\n")
    name = known_name(clip, config)
    with quiet(), as_user_error("open_clip can't load what was written"):
        model = load(folder, name)
    compared = request.compare(lambda pixels: answer(model, clip, head, pixels))
    calls = [f"open_clip.create_model_and_transforms('{name}', pretrained='…/{WEIGHTS}')"] * (name is not None)
    calls.append("open_clip.create_model_and_transforms('local-dir:…')")
    return Written(compared, (f"{' or '.join(calls)} loads it; {PROMPTS} has the sentences of each class",))


def model_config(clip: CLIP) -> dict[str, Any]:
    """Return open_clip's config of a backbone's model, with its activation and image size."""
    name = clip.source["name"]
    known = tiny.config() if name == "tiny" else open_clip.get_model_config(name)
    if known is None:
        raise UserError(f"open_clip has no config of '{name}', so that it couldn't load the checkpoint")
    quick = any(isinstance(module, open_clip.transformer.QuickGELU) for module in clip.model.modules())
    vision = {**known["vision_cfg"], "image_size": clip.model.visual.image_size}
    size = vision["image_size"]
    vision["image_size"] = size[0] if isinstance(size, tuple) and size[0] == size[1] else size
    return {**known, "vision_cfg": vision, "quick_gelu": quick}


def known_name(clip: CLIP, config: dict[str, Any]) -> str | None:
    """Return the name under which open_clip knows a config; None if it doesn't."""
    name = str(clip.source["name"])
    for each in (name, f"{name}-quickgelu"):
        known = open_clip.get_model_config(each)
        if known is not None and {"quick_gelu": False, **known} == config:
            return each
    return None


def load(folder: Path, name: str | None) -> Any:
    """Return the model as open_clip loads it, by its name or by the folder."""
    if name is None:
        model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    else:
        model, _, _ = open_clip.create_model_and_transforms(name, pretrained=str(folder / WEIGHTS))
    return model.eval()


def answer(model: Any, clip: CLIP, head: Classifier, pixels: Tensor) -> Tensor:
    """Return probabilities `[B, C]` as open_clip's own zero-shot classification computes them."""
    tokenize = (
        open_clip.SimpleTokenizer() if clip.source["name"] == "tiny" else open_clip.get_tokenizer(clip.source["name"])
    )
    rows = []
    for prompts in prompts_by_class(head).values():
        each = functional.normalize(model.encode_text(tokenize(prompts)), dim=-1)
        rows.append(functional.normalize(each.mean(dim=0), dim=-1))
    image = model.encode_image(pixels, normalize=True)
    return (model.logit_scale.exp() * image @ torch.stack(rows).T).softmax(-1)
