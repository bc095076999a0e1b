"""format=peft: peft's adapter files, as the folder `peft/` of a run directory has them."""

from pathlib import Path, PurePosixPath
from typing import Any

from peft import PeftModel
from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.adaptations.blocks import BlockReplacement, split_towers
from clipadapt.backbone.prompts import Prompts
from clipadapt.errors import UserError
from clipadapt.exports.request import Request, Written, as_user_error, quiet
from clipadapt.tasks import Classifier

FOLDER = "peft"


def write(request: Request, folder: Path) -> Written:
    """Write `adapter_config.json` and `adapter_model.safetensors`; for several adapters a folder each.

    Raises:
        UserError: the method has no adapter of peft.
    """
    head = request.head
    files = head.adaptation.export()
    adapters = {str(PurePosixPath(name).parent) for name in files}
    if not adapters or not isinstance(head, Classifier):
        raise UserError("this method has no adapter of peft: clip_lora and method=peft have one")
    alone = len(adapters) == 1
    for name, content in files.items():
        path = folder / (PurePosixPath(name).name if alone else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with quiet(), as_user_error("peft can't load what was written"):
        stages = load_stages(head, {part: folder if alone else folder / part for part in adapters})
    compared = request.compare(lambda pixels: request.predictor.kind.answers(logits(head, stages, pixels)))
    tower = "docs/peft.md shows how PeftModel.from_pretrained puts it onto the blocks of clipadapt's towers"
    return Written(compared, (tower,))


def load_stages(head: Classifier, folders: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Return the blocks with adapters that peft has loaded from folders, by tower and point."""
    found: dict[str, dict[str, Any]] = {tower: dict(head.adaptation.stages(tower)) for tower in head.clip.towers}
    for part, own in zip(exporting_parts(head.adaptation), folders, strict=True):
        towers = "both" if len(part.replaced) > 1 else next(iter(part.replaced))
        blocks: Any = split_towers(head.clip, towers)  # type: ignore[arg-type]
        adapted: Any = PeftModel.from_pretrained(blocks, str(folders[own])).eval().base_model.model
        for tower in part.replaced:
            found[tower] |= {point: adapted[tower]["block"][int(point[6:])] for point in part.replaced[tower]}
    return found


def exporting_parts(adaptation: Adaptation) -> list[BlockReplacement]:
    """Return the parts of an adaptation with files of their own."""
    return [part for part in adaptation.list_parts() if isinstance(part, BlockReplacement) and part.export()]


def logits(head: Classifier, stages: dict[str, dict[str, Any]], pixels: Tensor) -> Tensor:
    """Return logits `[B, C]` with these stages in place of the predictor's."""
    adaptation, start = head.adaptation, head.text_start
    image = head.image.run(head.prefix(pixels), adaptation.edits("image"), stages["image"], start=head.image_cut)
    conditional = adaptation.capabilities.conditional
    edits = adaptation.edits("text", image if conditional else None)
    if isinstance(start, Prompts):
        text = start.run(head.clip.text, edits, stages["text"], start=head.text_cut)
    else:
        text = head.clip.text.run(start, edits, stages["text"], start=head.text_cut)
    return head.logits(image, adaptation.class_embeddings(adaptation.merge_names(text, head.name_counts)))
