"""Pretrain the embedded backbone, `tiny`, on the drawn world, and write its weights and card.

    python recipes/pretrain_tiny.py --out clipadapt/backbone/tiny --work pretraining

Every true pair of a batch is a positive: the loss pulls an image to all captions that are true of it, and a caption to
all images it is true of. No data but drawings are used. A stopped run resumes from its checkpoint.
"""

import argparse
import json
import math
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from accelerate import Accelerator
from open_clip.transform import PreprocessCfg
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

import clipadapt
from clipadapt.backbone import tiny
from clipadapt.backbone.open_clip import CLIP, build, image_tower, splicer, text_tower
from clipadapt.backbone.packing import pack
from clipadapt.backbone.rows import Layout, Rows
from clipadapt.data import drawn

CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 128, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 4},
}
PREPROCESS = PreprocessCfg(size=32)
EVALUATE_EVERY = 400
"""Steps between evaluations on drawings of the validation split; the weights with the best mean accuracy are kept."""


@dataclass(frozen=True)
class Recipe:
    """The settings of a pretraining run."""

    seed: int = 0
    steps: int = 5200
    batch: int = 256
    learning_rate: float = 1.2e-3
    weight_decay: float = 0.1
    warmup: int = 200
    embedding_seed: int = 0
    embedding_deviation: float = 0.02


class Batches(Dataset):
    """The batches of a run: a step's images, their distinct captions, and which caption is true of which image."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.tokenizer = splicer(open_clip.SimpleTokenizer(), 77)

    def __len__(self) -> int:
        return self.recipe.steps

    def __getitem__(self, step: int) -> tuple[Tensor, Layout, Tensor]:
        """Return the images `[B, 32, 32, 3]` in bytes, the layout of U captions, and the truth matrix `[B, U]`."""
        first = step * self.recipe.batch
        drawings = [drawn.draw(self.recipe.seed, first + i) for i in range(self.recipe.batch)]
        captions = {drawing.caption.text: drawing.caption for drawing in drawings}
        layout = pack([self.tokenizer.sequence(text) for text in captions], (len(captions), 1), 0)
        truth = drawn.truth_matrix([drawn.facts(d.scene) for d in drawings], [c.claims for c in captions.values()])
        return torch.from_numpy(np.stack([d.image for d in drawings])), layout, torch.from_numpy(truth)


class Pair(nn.Module):
    """The model and its loss in one module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.image, self.text = image_tower(model), text_tower(model)

    def forward(self, images: Tensor, layout: Layout, truth: Tensor) -> Tensor:
        """Return the cross entropy, in both directions, against targets shared evenly by the true pairs."""
        image = functional.normalize(self.image.run(pixels(images)), dim=-1)
        text = functional.normalize(self.text.run(Rows(layout.ids, layout))[:, 0], dim=-1)
        logits = self.model.logit_scale.clamp(max=math.log(100)).exp() * image @ text.T
        return (shared_entropy(logits, truth) + shared_entropy(logits.T, truth.T)) / 2


def shared_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the mean over rows of the cross entropy against a target shared evenly by the true columns."""
    target = truth / truth.sum(dim=1, keepdim=True)
    return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


def pixels(images: Tensor) -> Tensor:
    """Convert bytes `[B, height, width, 3]` to normalised pixels `[B, 3, height, width]`."""
    mean, std = images.new_tensor(PREPROCESS.mean, dtype=torch.float32), torch.tensor(PREPROCESS.std).to(images.device)
    return ((images / 255 - mean) / std).permute(0, 3, 1, 2)


def parameter_groups(model: nn.Module, decay: float) -> list[dict]:
    """Return parameter groups with weight decay for the matrices of the blocks, and none for the rest."""
    named = list(model.named_parameters())
    heavy = [w for name, w in named if w.ndim >= 2 and "embedding" not in name]
    light = [w for name, w in named if w.ndim < 2 or "embedding" in name]
    return [{"params": heavy, "weight_decay": decay}, {"params": light, "weight_decay": 0.0}]


def rate(step: int, recipe: Recipe) -> float:
    """Return the learning rate at a step as a share of the peak: linear warm-up, then a cosine to zero."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - recipe.warmup) / (recipe.steps - recipe.warmup)))


def save_checkpoint(path: Path, state: dict) -> None:
    """Write a checkpoint atomically."""
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def zero_shot(pair: Pair, task: str, count: int = 2400) -> tuple[np.ndarray, np.ndarray]:
    """Return predicted and true classes of drawings of a task's validation split."""
    tokenizer = splicer(open_clip.SimpleTokenizer(), 77)
    names, templates = drawn.TASKS[task].class_names, drawn.TASKS[task].templates
    sequences = [tokenizer.sequence(template.replace("{}", name)) for name in names for template in templates]
    layout = pack(sequences, (len(names), len(templates)), 0).to(pair.model.logit_scale.device)
    examples = [drawn.draw_labelled(task, "val", i) for i in range(count)]
    images = torch.from_numpy(np.stack([image for image, _ in examples])).to(layout.ids.device)
    with torch.no_grad():
        text = functional.normalize(pair.text.run(Rows(layout.ids, layout)), dim=-1).mean(dim=1)
        logits = pair.image.run(pixels(images)) @ functional.normalize(text, dim=-1).T
    return logits.argmax(dim=1).cpu().numpy(), np.array([label for _, label in examples])


def report(pair: Pair) -> dict[str, float]:
    """Return zero-shot accuracies on validation drawings."""
    figures = {}
    for task in ("shapes", "glyphs"):
        predicted, true = zero_shot(pair, task)
        figures[task] = float((predicted == true).mean())
    predicted, true = zero_shot(pair, "pairs")
    new = np.array([drawn.held_out(*pair) for pair in drawn.PAIRS])[true]
    return figures | {
        "seen pairs": float((predicted == true)[~new].mean()),
        "held-out pairs": float((predicted == true)[new].mean()),
    }


def train(recipe: Recipe, work: Path) -> tuple[Pair, dict[str, Any]]:
    """Train, or resume, and return the model with its best weights, and their step, figures and seen token ids."""
    accelerator = Accelerator()
    torch.manual_seed(recipe.seed)
    pair = Pair(build(CONFIG, None))
    optimizer = torch.optim.AdamW(
        parameter_groups(pair.model, recipe.weight_decay), lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True
    )
    wrapped, optimizer = accelerator.prepare(pair, optimizer)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, recipe))
    path, start, seen = work / "checkpoint.pt", 0, set()
    best: dict[str, Any] = {"score": -1.0}
    if path.exists():
        state = torch.load(path, map_location=accelerator.device)
        start, seen, best = state["step"], set(state["seen"]), state["best"]
        for part in ("model", "optimizer", "schedule"):
            {"model": pair, "optimizer": optimizer, "schedule": schedule}[part].load_state_dict(state[part])
    loader = DataLoader(Batches(recipe), batch_size=None, sampler=range(start, recipe.steps), num_workers=2)
    began = saved = time.monotonic()
    for step, (images, layout, truth) in enumerate(loader, start):
        seen.update(layout.ids.tolist())
        batch = [x.to(accelerator.device) for x in (images, layout, truth)]
        loss = wrapped(*batch)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(pair.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        done = step + 1
        if done % 50 == 0:
            seconds = (time.monotonic() - began) / (done - start)
            accelerator.print(f"step {done} loss {loss.item():.3f}, {seconds:.2f} s a step", flush=True)
        if done % EVALUATE_EVERY == 0 or done == recipe.steps:
            figures = report(pair)
            accelerator.print(json.dumps({"step": done} | figures), flush=True)
            score = sum(figures.values()) / len(figures)
            if score > best["score"]:
                model = {name: value.detach().cpu().clone() for name, value in pair.state_dict().items()}
                best = {"score": score, "step": done, "figures": figures, "model": model, "seen": sorted(seen)}
        if time.monotonic() - saved > 60 or done == recipe.steps:
            state = {"model": pair.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
            save_checkpoint(path, state | {"step": done, "seen": sorted(seen), "best": best})
            saved = time.monotonic()
    pair.load_state_dict(best["model"])
    return pair, best


def export(pair: Pair, best: dict[str, Any], recipe: Recipe, out: Path) -> None:
    """Write the weights in half precision, with the embeddings of the tokens seen in training only, and the card."""
    seen = best["seen"]
    state = {name: w.detach().cpu().half().contiguous() for name, w in pair.model.state_dict().items()}
    embeddings = state.pop("token_embedding.weight")
    state["token_embedding.seen"] = embeddings[seen]
    state["token_embedding.ids"] = torch.tensor(seen, dtype=torch.int32)
    out.mkdir(parents=True, exist_ok=True)
    save_file(state, out / "model.safetensors")
    card = {"model": CONFIG, "recipe": asdict(recipe), "data": "clipadapt.data.drawn", "figures": {}}
    card |= {"step": best["step"], "validation": best["figures"]}
    (out / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    os.chmod(out / "model.safetensors", 0o644)


def figures() -> dict[str, float]:
    """Return the embedded weights' accuracies, as fractions: zero-shot on drawings and real digits, and linear probes.

    Drawings are of the test split, which pretraining never uses. The digits are the last 797 of scikit-learn's; a probe
    is a logistic regression on 16 images per class, its inputs divided by their standard deviation; the result is the
    mean over 5 samples.
    """
    backbone = clipadapt.load_backbone("tiny")
    found = {name: zero_shot_metrics(backbone, name, 600)["accuracy"] for name in ("shapes", "glyphs")}
    pairs = zero_shot_metrics(backbone, "pairs", 1200)["per_class"]
    for kind, group in (("seen pairs", drawn.SEEN_PAIRS), ("held-out pairs", drawn.HELD_OUT_PAIRS)):
        found[kind] = float(np.mean([pairs[f"{colour} {shape}"] for shape, colour in group]))
    task = clipadapt.load_task("digits")
    found["digits"] = clipadapt.finetune(backbone, task, "zero_shot").metrics["accuracy"]
    return found | probes(backbone)


def zero_shot_metrics(backbone: CLIP, name: str, images: int) -> dict[str, Any]:
    """Zero-shot on a drawn task's main style."""
    task = clipadapt.load_task("drawn", shots=1, name=name, test_images=images)
    return clipadapt.finetune(backbone, replace(task, tests={"test": task.tests["test"]}), "zero_shot").metrics


def probes(backbone: CLIP) -> dict[str, float]:
    """16-shot linear probes on the digits: on raw pixels and on the backbone's features, in the same way."""
    pool, labels = load_digits(return_X_y=True)
    tasks = [clipadapt.load_task("digits", shots=16, seed=seed) for seed in range(1, 6)]
    images = [Image.fromarray((x.reshape(8, 8) * 255 / 16).round().astype(np.uint8)).convert("RGB") for x in pool]
    with torch.no_grad():
        features = backbone.image.run(torch.stack([backbone.transform(image) for image in images])).numpy()
    return {
        f"linear probe on {name}": float(np.mean([probe(values, labels, task.support_indices) for task in tasks]))
        for name, values in (("pixels", pool), ("features", features))
    }


def probe(values: np.ndarray, labels: np.ndarray, support: list[int]) -> float:
    """Return the accuracy on the last 797 digits of a classifier fitted to the support set."""
    values = values / values[support].std()
    classifier = LogisticRegression(max_iter=2000).fit(values[support], labels[support])
    return float(classifier.score(values[1000:], labels[1000:]))


def main() -> None:
    """Train, or resume, and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights and the card")
    parser.add_argument("--work", type=Path, default=Path("pretraining"), help="folder for the checkpoint")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(steps=arguments.steps)
    export(*train(recipe, arguments.work), recipe, arguments.out)
    if arguments.out.resolve() == tiny.HERE:
        card = json.loads((tiny.HERE / "card.json").read_text()) | {"figures": figures()}
        (tiny.HERE / "card.json").write_text(json.dumps(card, indent=2) + "\n")


if __name__ == "__main__":
    main()
