"""What a golden record holds, computed by clipadapt: one way for every method."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import torch
import yaml
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional

from clipadapt import config
from clipadapt.backbone.clip import CLIP, build
from clipadapt.classifier import Classifier
from clipadapt.config import setting
from clipadapt.engine.batches import Batches
from clipadapt.engine.feeds import Kept
from clipadapt.engine.fit import Fit, Progress
from clipadapt.engine.learner import Learner
from clipadapt.engine.schedules import constant
from clipadapt.runs import adaptation_maker
from tests.golden import tiny_clip
from tests.layouts import rows_of_prompts

HERE = Path(__file__).parent
TABLE = yaml.safe_load((HERE / "names.yaml").read_text())


@dataclass(frozen=True)
class Record:
    """One record: its words and its numbers."""

    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @classmethod
    def read(cls, path: Path) -> "Record":
        with np.load(path.with_suffix(".npz")) as arrays:
            return cls(json.loads(path.read_text()), dict(arrays))

    @property
    def names(self) -> dict[str, Any]:
        """This method's entry in the table."""
        method = self.meta["method"]
        if method not in TABLE:
            raise LookupError(f"no entry for the method {method} in names.yaml")
        return TABLE[method]

    def tensor(self, name: str, device: str) -> Tensor:
        return torch.from_numpy(self.arrays[name]).to(device)

    @property
    def inits(self) -> dict[str, str]:
        """Learned tensors with a recorded start: the record's name -> ours."""
        found = [name.removeprefix("init/") for name in self.arrays if name.startswith("init/")]
        return {name: self.names.get("learnables", {})[name] for name in found}


def tiny(seed: int, device: str) -> CLIP:
    """The tiny CLIP of the records."""
    weights = {name: torch.from_numpy(np.asarray(value)) for name, value in tiny_clip.openai_state_dict(seed).items()}
    model = build(tiny_clip.open_clip_config(), weights)
    return CLIP(model, open_clip.SimpleTokenizer(), {"name": "golden", "pretrained": None, "seed": seed}).to(device)


def settings_of(record: Record) -> dict[str, Any]:
    """Our settings for a record's hyper-parameters; an unknown one, or another value of a constant, is an error."""
    names = record.names
    overrides = [f"method={names['method']}"]
    for name, entry in record.meta["hyperparameters"].items():
        value = entry["value"]
        if name in names.get("constants", {}):
            if value != names["constants"][name]:
                raise LookupError(f"{name} is {value}, and there is only {names['constants'][name]}")
            continue
        key = names.get("settings", {})[name]
        overrides.append(setting(key[0], [value]) if isinstance(key, list) else setting(key, value))
    return config.compose(overrides)


def variants(record: Record) -> dict[str, list[str]]:
    """Templates by the suffix that the record gives what was computed with them."""
    templates = record.meta["templates"]
    if isinstance(templates, dict):
        return {f"_{name}": [text] if isinstance(text, str) else text for name, text in templates.items()}
    return {"": templates or ["a photo of a {}."]}


def compute(record: Record, device: str) -> dict[str, Callable[[], Any]]:
    """Everything that a record of this method may hold, by name."""
    settings = settings_of(record)
    found: dict[str, Any] = {}
    for suffix, templates in variants(record).items():
        one = _compute_one(record, settings, templates, device)
        found |= {f"{name}{suffix}": value for name, value in one.items()}
    return found


def _compute_one(record: Record, settings: dict[str, Any], templates: list[str], device: str) -> dict[str, Any]:
    clip = tiny(record.meta["tiny_clip_seed"], device)
    task = SimpleNamespace(class_names=record.meta["class_names"], templates=templates)
    adaptation = adaptation_maker(settings)(clip, task).to(device)
    learned = dict(adaptation.named_parameters())
    with torch.no_grad():
        for name, ours in record.inits.items():
            assert learned[ours].shape == record.arrays[f"init/{name}"].shape
            learned[ours].copy_(record.tensor(f"init/{name}", device))
    assert learned.keys() == set(record.inits.values())
    classifier = Classifier(clip, adaptation, task.class_names)
    images = record.tensor("images", device)
    found = _forward(classifier, images) | _tokens(classifier, settings, task)
    canvas = getattr(dict(adaptation.named_modules()).get("parts.adaptation"), "canvas", None)
    if canvas is not None:
        found["canvas"] = canvas()[0]
    if record.inits:
        found |= _fit(record, settings, classifier, images)
    return found


def _tokens(classifier: Classifier, settings: dict[str, Any], task: Any) -> dict[str, Tensor]:
    found = {"token_ids": _padded_ids(classifier)}
    node = settings["method"]["adaptation"]
    if "class_token_position" in node:
        end = {**settings["method"], "adaptation": {**node, "class_token_position": "end"}}
        adaptation = adaptation_maker({**settings, "method": end})(classifier.clip, task).to(classifier.clip.device)
        found["token_ids_in_end_order"] = _padded_ids(Classifier(classifier.clip, adaptation, task.class_names))
    return found


def _padded_ids(classifier: Classifier) -> Tensor:
    """Token ids `[C, 77]`, or `[templates, C, 77]` of an ensemble."""
    layout = classifier.clip.tokenize(classifier.adaptation.prompts(classifier.class_names)).layout.to("cpu")
    found = rows_of_prompts(layout)
    ids = torch.zeros(len(found), 77, dtype=torch.long)
    for n, rows in enumerate(found):
        ids[n, : len(rows)] = layout.ids[rows]
    return ids.unflatten(0, layout.shape).transpose(0, 1).squeeze(0)


def _forward(classifier: Classifier, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        output = classifier.output(images)
        raw = classifier.clip.image.run(images)
        text = classifier.text_features()
    return {
        "logits": output.logits,
        "image_features_raw": raw,
        "image_features": functional.normalize(output.image, dim=-1),
        "text_features_raw": text[:, 0],
        "text_features": functional.normalize(output.text, dim=-1),
    }


def _fit(record: Record, settings: dict[str, Any], classifier: Classifier, images: Tensor) -> dict[str, Any]:
    """Loss and gradients at the start, three full-batch steps of plain SGD, and what they lead to."""
    labels = record.tensor("labels", str(images.device))
    learner = Learner(classifier, config.build(settings["method"]["objective"]))
    parameters = dict(classifier.adaptation.named_parameters())
    source = Kept(classifier.prefix(images)[None], labels, classifier.image_cut)
    losses, _ = learner(source.values[0], labels, source.start)
    loss = torch.stack(list(losses.values())).sum()
    gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    optimizer = torch.optim.SGD(classifier.adaptation.parameters(), lr=record.meta["lr"])
    count = len(labels)
    fit = Fit(
        accelerator=Accelerator(cpu=images.device.type == "cpu"),
        learner=learner,
        optimizer=optimizer,
        schedule=constant(optimizer, 3),
        batches=Batches(count, count, 1, seed=0),
        source=source,
        epochs=3,
        seed=0,
    )
    history = fit.run(Progress(), lambda progress: None).history
    with torch.no_grad():
        losses, logits = learner(source.values[0], labels, source.start)
    found = {
        "loss": loss,
        "trajectory/loss": torch.tensor([row["loss"] for row in history]),
        "final/logits": logits,
        "final/loss": torch.stack(list(losses.values())).sum(),
    }
    found |= {f"grad/{name}": gradients[ours] for name, ours in record.inits.items()}
    return found | {f"final/{name}": parameters[ours] for name, ours in record.inits.items()}
