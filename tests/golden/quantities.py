"""What a golden record holds, computed by clipadapt: one way for every method.

names.yaml gives, for each output of a record, the expression that computes it here. Expressions see the record's
inputs under their names, and what `Bench.scope` lists. A record tells what it saw at several moments: at the start,
before each recorded step (`along`), after them (`final`), with the weights averaged over them (`averaged`), after steps
of the method's own optimiser (`authors`), where a second phase begins (`begun`) and after its steps (`second`), after
what the method finds without gradients (`num_fitted_values`).
"""

import copy
import functools
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
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
from clipadapt.adaptations.refined_cache import channel_scores, mean_products
from clipadapt.backbone.open_clip import CLIP, build
from clipadapt.config import setting
from clipadapt.engine.batches import BatchSampler
from clipadapt.engine.fit import Fit, TrainState
from clipadapt.engine.learner import Learner
from clipadapt.engine.phases import trained_alone
from clipadapt.engine.schedules import constant
from clipadapt.features.batch_sources import InMemoryFeatures
from clipadapt.features.teachers import WithTeacherFeatures
from clipadapt.interfaces import LabelledFeatures
from clipadapt.objectives import CrossEntropy
from clipadapt.objectives.consistency import cosine_distance
from clipadapt.runs.methods import adaptation_maker, build_test_time, gradient_rule_and_average
from clipadapt.tasks import Classification, Classifier
from clipadapt.test_time.batch import Tuning
from clipadapt.test_time.copies import batched_parameters
from clipadapt.test_time.views import most_confident, view_logits
from tests.golden import tiny_clip
from tests.golden.modules import Adapters
from tests.layouts import rows_of_prompts

HERE = Path(__file__).parent
TABLE = yaml.safe_load((HERE / "names.yaml").read_text())
STEPS = 3
Found = dict[str, Any]


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
        others = TABLE[method].get("with", {})
        return TABLE[next((others[name] for name in self.meta["hyperparameters"] if name in others), method)]

    def tensor(self, name: str, device: str) -> Tensor:
        return torch.from_numpy(self.arrays[name]).to(device)

    @property
    def inits(self) -> dict[str, str]:
        """Learned tensors with a recorded start: the record's name -> ours."""
        found = [name.removeprefix("init/") for name in self.arrays if name.startswith("init/")]
        ours = {name: self._ours(name) for name in found}
        return {name: own for name, own in ours.items() if own is not None}

    def _ours(self, name: str) -> str | None:
        """Our name of a learned tensor: the one listed, or what the first pattern that fits makes of it."""
        listed = self.names.get("learnables", {})
        if name in listed:
            return listed[name]
        fitting = ((re.fullmatch(pattern, name), own) for pattern, own in listed.items())
        expanded = next(match.expand(own) for match, own in fitting if match)
        return re.sub(r"\{(\d+)-1\}", lambda number: str(int(number[1]) - 1), expanded)

    def expressions(self, moment: str, suffix: str = "") -> dict[str, str]:
        """The expressions of the outputs that this record has at a moment."""
        table = {**TABLE["common"].get(moment, {}), **self.names.get("outputs", {}).get(moment, {})}
        renamed = self.names.get("renamed", {})
        wanted = {renamed.get(name, name) for name in self.meta["tensors"]}
        found = {name: text for name, text in table.items() if name + suffix in wanted}
        fitting = (
            (name, re.fullmatch(pattern, name), text) for name in wanted - {*table} for pattern, text in table.items()
        )
        return found | {name: match.expand(text) for name, match, text in fitting if match}


@dataclass(frozen=True)
class Text:
    """What a phase may begin with: class embeddings, computed when they are asked for."""

    classifier: Classifier

    @property
    def text(self) -> Tensor:
        return self.classifier.class_embeddings()


def tiny(seed: int, device: str) -> CLIP:
    """The tiny CLIP of the records."""
    weights = {name: torch.from_numpy(np.asarray(value)) for name, value in drawn_weights(seed).items()}
    model = build(tiny_clip.open_clip_config(), weights)
    return CLIP(model, open_clip.SimpleTokenizer(), {"name": "golden", "pretrained": None, "seed": seed}).to(device)


@cache
def drawn_weights(seed: int) -> dict[str, np.ndarray]:
    """The weights of a seed, drawn once: models copy them."""
    return tiny_clip.openai_state_dict(seed)


def settings_of(record: Record) -> dict[str, Any]:
    """Our settings for a record's hyper-parameters; an unknown one, or another value of a constant, is an error.

    The header of names.yaml says how settings are written.
    """
    names = record.names
    overrides = [f"method={names['method']}", *names.get("overrides", [])]
    for name, entry in record.meta["hyperparameters"].items():
        value = entry["value"]
        if name in names.get("constants", {}):
            if value != names["constants"][name]:
                raise LookupError(f"{name} is {value}, and there is only {names['constants'][name]}")
            continue
        overrides += _overrides(names.get("settings", {})[name], value)
    for name, key in names.get("templates", {}).items():
        overrides += _overrides(key, record.meta["templates"][name])
    tables = {key: record.meta[name] for name, key in names.get("tables", {}).items()}
    if "prompts" in names:
        tables[names["prompts"]] = dict(zip(record.meta["class_names"], record.meta["prompts"], strict=True))
    overrides += _overrides(names.get("lr"), record.meta["lr"])
    return config.compose(overrides, values=tables)


def _overrides(key: Any, value: Any) -> Iterator[str]:
    if isinstance(key, str):
        yield setting(key, value)
    elif isinstance(key, list):
        yield setting(key[0], [key[1] % value if len(key) > 1 else value])
    elif isinstance(key, Mapping) and "each" in key:
        for own_key in key["each"]:
            yield from _overrides(own_key, value)
    elif isinstance(key, Mapping) and "match" in key:
        found = re.fullmatch(key["match"], value)
        assert found, value
        yield from (setting(key[name], text) for name, text in found.groupdict().items())
    elif isinstance(key, Mapping) and "placeholders" in key:
        yield setting(key["placeholders"], [" ".join(["X"] * value + ["{}."])])
    elif isinstance(key, Mapping) and isinstance(value, str | int | None):
        yield from key[value] if value in key else _overrides(key["otherwise"], value)
    elif isinstance(key, Mapping):
        for inner, inner_key in key.items():
            yield from _overrides(inner_key, value[inner])


def variants(record: Record) -> dict[str, list[str]]:
    """Templates by the suffix that the record gives what was computed with them."""
    templates = record.meta["templates"]
    if not isinstance(templates, dict):
        return {"": templates or ["a photo of a {}."]}
    if not record.names.get("variants", False):
        return {"": [text for value in templates.values() for text in ([value] if isinstance(value, str) else value)]}
    return {f"_{name}": [text] if isinstance(text, str) else text for name, text in templates.items()}


def compute(record: Record, device: str) -> Found:
    """Everything that a record of this method may hold, by name."""
    settings = settings_of(record)
    if record.names.get("module", False):
        return Adapters(record, settings, device).run()
    found: Found = {}
    for suffix, templates in variants(record).items():
        one = Bench(record, settings, templates, device, suffix).run()
        found |= {f"{name}{suffix}": value for name, value in one.items()}
    return found


@dataclass
class Bench:
    """One record's method on the tiny CLIP, at the record's start."""

    record: Record
    settings: dict[str, Any]
    templates: list[str]
    device: str
    suffix: str = ""
    extra: Found = field(default_factory=dict)

    @cached_property
    def clip(self) -> CLIP:
        return tiny(self.record.meta["tiny_clip_seed"], self.device)

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        return {name: self.record.tensor(name, self.device) for name in self.record.arrays if "/" not in name}

    @cached_property
    def task(self) -> Any:
        names = self.record.meta["class_names"]
        plain = SimpleNamespace(class_names=names, templates=self.templates, words={})
        if "support_views" in self.inputs:
            plain.support = LabelledFeatures(self.features(self.inputs["support_views"]), self.inputs["support_labels"])
        elif "support_images" in self.inputs:
            image = self.features(self.inputs["support_images"][None])
            plain.support = LabelledFeatures(image, self.inputs["support_labels"])
        elif {"images", "labels"} <= self.inputs.keys():
            plain.support = LabelledFeatures(self.features(self.inputs["images"][None]), self.inputs["labels"])
        if hasattr(plain, "support"):
            plain.support_shape = tuple(plain.support.image.shape)
        return plain

    @cached_property
    def adaptation(self) -> Any:
        torch.manual_seed(0)
        made = adaptation_maker(self.settings)(self.clip, self.task).to(self.device)
        self.load_start(made)
        return made

    def load_start(self, adaptation: Any) -> None:
        learned = {**dict(adaptation.named_buffers()), **dict(adaptation.named_parameters())}
        with torch.no_grad():
            for name, ours in self.record.inits.items():
                own, given = part(learned, ours), self.record.tensor(f"init/{name}", self.device)
                own.copy_(in_shape(given, own.shape, name))
        first = {id(parameter) for parameter in adaptation.trained_in(0)}
        trained = {name for name, parameter in adaptation.named_parameters() if id(parameter) in first}
        unknown = trained - {whole(ours) for ours in self.record.inits.values()}
        assert all(any(re.fullmatch(own, x) for own in self.record.names.get("unrecorded", [])) for x in unknown)

    @cached_property
    def classifier(self) -> Classifier:
        made = Classifier(self.clip, self.adaptation, self.task.class_names)
        with torch.no_grad():
            self.adaptation.begin_phase(0, Text(made))
        return made

    @cached_property
    def objective(self) -> Any:
        node = self.settings["method"]["objective"]
        if node is None:
            return CrossEntropy(self.clip, self.task)
        return config.build(node, self.clip, self.task, place="method.objective")

    @cached_property
    def test_time(self) -> Any:
        method = build_test_time(self.settings)
        if method is not None and method.teacher_specs:
            method.teachers = [tiny(self.record.meta["reward_clip_seed"], self.device)]
        return method

    def test_time_with(self, **changes: Any) -> Any:
        """The same with other settings; of a nested one `table__key`."""
        node = copy.deepcopy(self.settings["method"]["test_time"])
        for name, value in changes.items():
            *tables, key = name.split("__")
            functools.reduce(operator.getitem, tables, node)[key] = value
        return config.build(node, place="method.test_time")

    @cached_property
    def tuned(self) -> Any:
        """What the method's tuning to the record's views gives, `Tuned`."""
        if self.test_time.sees_pixels:
            return self.test_time.tune_to_pixels(self.classifier, [*self.inputs["views"]], self.weights())
        return self.test_time.tune(self.classifier, self.at_cut(), self.weights())

    @cached_property
    def tuned_stream(self) -> list[tuple[Any, Found]]:
        """What the method's adapting to each of the record's images gives, and its state after the image."""
        return [(self.test_time.adapt(self.classifier, x), self.test_time.state_dict()) for x in self.at_cut()]

    @cached_property
    def batches(self) -> list[Tensor]:
        """Activations `[B, 1, ...]` at the image cut of each of the record's batches, or of its only one."""
        images = self.inputs["images"]
        return [self.classifier.prefix(one[:, None]) for one in (images if images.dim() == 5 else images[None])]

    @cached_property
    def tuned_batches(self) -> list[Any]:
        """What the method's tuning to each of the record's batches gives."""
        return [self.test_time.tune(self.classifier, x) for x in self.batches]

    def batches_start(self) -> Tensor:
        """The method's logits `[case, B, C]` before any step."""
        starts = [Tuning(self.classifier, x.flatten(0, 1), {}) for x in self.batches]
        return torch.stack([self.test_time.answers(start) for start in starts])

    def of_batch(self, field: str, name: str) -> Tensor:
        """A tensor that tuning to the first batch gives, by the end of its name; of averages, after the first one."""
        tables = getattr(self.tuned_batches[0], field)
        found = tables[0] if field == "averages" else tables
        (key,) = (key for key in found if key.replace("/", ".").endswith(f".{name}"))
        return found[key]

    def images_of(self, name: str) -> list[int]:
        """Places of the images in the stream at which an output was seen: the record counts them from 1."""
        (listed,) = re.findall(r"\[([\d, ]+)\]", self.record.meta["tensors"][name]["meaning"])
        return [int(number) - 1 for number in listed.split(",")]

    def padded(self, lists: Sequence[Tensor], width: int) -> Tensor:
        """Lists of numbers as rows of a table, with -1 behind them."""
        return torch.stack([functional.pad(one, (0, width - len(one)), value=-1) for one in lists])

    def tuned_text(self) -> Tensor:
        """Unit class embeddings `[B, C, D]` with the learned tensors as tuned to each image."""
        with torch.no_grad(), batched_parameters(self.adaptation, len(self.tuned.logits)) as parameters:
            for name, parameter in parameters.items():
                parameter.copy_(self.tuned.tensors[name])
            return functional.normalize(self.classifier.class_embeddings(), dim=-1)

    def classifier_with(self, **changes: Any) -> Classifier:
        """The same with other settings of its adaptation."""
        method = self.settings["method"]
        changed = {**method, "adaptation": {**method["adaptation"], **changes}}
        made = adaptation_maker({**self.settings, "method": changed})(self.clip, self.task).to(self.device)
        return Classifier(self.clip, made, self.task.class_names)

    @torch.no_grad()
    def fitted_to(self, images: Tensor, entry: str) -> Any:
        """The adaptation of another entry of the table with the record's settings, fitted to images without labels."""
        arrays = {"support_images": images.cpu().numpy(), "support_labels": np.full(len(images), -1)}
        record = Record({**self.record.meta, "method": entry}, arrays)
        other = Bench(record, settings_of(record), self.templates, self.device)
        other.adaptation.fit_closed_form(other.learned())
        return other.adaptation

    def at_cut(self) -> Tensor:
        """Activations `[B, V, ...]` of the record's views at the image cut; its images as one view each."""
        views = self.inputs["views"] if "views" in self.inputs else self.inputs["images"][:, None]
        return self.classifier.prefix(views)

    @cached_property
    def stream(self) -> list[tuple[Found, Found]]:
        """What each image of a stream leaves, one after another: the values of its step, and the state after it."""
        method, x, weights = self.test_time_with(), self.at_cut(), self.weights()
        method.reset(len(x))
        with torch.no_grad():
            return [(method.follow(self.classifier, one[None], weights)[0], method.state_dict()) for one in x]

    def along_stream(self, name: str) -> Tensor:
        """A value of every image's step, `[N, ...]`."""
        return torch.stack([values[name] for values, _ in self.stream])

    def states(self, name: str, *counts: int) -> Tensor:
        """A tensor of the stream's state after several numbers of images; half of them and all if none are given."""
        return torch.stack([self.stream[count - 1][1][name] for count in counts or self.halves])

    @property
    def halves(self) -> tuple[int, int]:
        """Half of the stream's images, and all."""
        return len(self.stream) // 2, len(self.stream)

    def weights(self) -> Tensor:
        """Class weights `[C, D]`."""
        return self.classifier.class_embeddings().detach()

    def view_logits(self) -> Tensor:
        """Logits `[B, V, C]` of the record's views."""
        with torch.no_grad():
            return view_logits(self.classifier, self.at_cut(), self.weights())

    def features(self, images: Tensor) -> Tensor:
        """Raw features of images `[..., 3, height, width]` by the frozen tower."""
        with torch.no_grad():
            return self.clip.image.run(images)

    def output(self, images: Tensor) -> Any:
        with torch.no_grad():
            return self.classifier.output(images)

    def text(self, templates: list[str]) -> Tensor:
        """Raw features `[C, T, D]` of hand-written prompts; underscores are spaces."""
        names = [name.replace("_", " ") for name in self.task.class_names]
        with torch.no_grad():
            return self.clip.text.run(self.clip.tokenize([[t.replace("{}", n) for t in templates] for n in names]))

    def losses(self) -> dict[str, Tensor]:
        """Named losses of the record's batch."""
        found, _ = self.learner(self.start, self.inputs["labels"], self.classifier.image_cut, self.teacher_features)
        return found

    @property
    def teacher_features(self) -> list[Tensor]:
        """What the objective's teachers see in the record's batch."""
        seen = self.inputs["teacher_images" if self.objective.teachers_see_others else "images"]
        with torch.no_grad():
            return [teacher.image.run(seen) for teacher in self.objective.teachers]

    @property
    def learner(self) -> Learner:
        return Learner(self.classifier, self.objective)

    @property
    def start(self) -> Tensor:
        return self.classifier.prefix(self.inputs["images"])

    def total(self) -> Tensor:
        losses, (rule, _) = self.losses(), gradient_rule_and_average(self.settings)
        return torch.stack([*losses.values()]).sum() if rule is None else losses[rule.primary_loss]

    @property
    def scope(self) -> dict[str, Any]:
        """What expressions see."""
        return {
            **self.inputs,
            **self.extra,
            "adaptation": self.adaptation,
            "parts": getattr(self.adaptation, "parts", {}),
            "classifier": self.classifier,
            "objective": self.objective,
            "test_time": self.test_time,
            "test_time_with": self.test_time_with,
            "classifier_with": self.classifier_with,
            "x": self.at_cut,
            "weights": self.weights,
            "view_logits": self.view_logits,
            "along_stream": self.along_stream,
            "states": self.states,
            "most_confident": most_confident,
            "task": self.task,
            "clip": self.clip,
            "bench": self,
            "settings": {name: entry["value"] for name, entry in self.record.meta["hyperparameters"].items()},
            "output": self.output,
            "features": self.features,
            "text": self.text,
            "losses": self.losses,
            "total": self.total,
            "gradients": self.gradients,
            "class_names": self.record.meta["class_names"],
            "new_class_names": self.record.meta.get("new_class_names"),
            "mean_products": mean_products,
            "cosine_distance": cosine_distance,
            "channel_scores": channel_scores,
            "average": gradient_rule_and_average(self.settings)[1],
            "prompt_ids": padded_ids(self.classifier),
            "unit": lambda x: functional.normalize(x, dim=-1),
            "torch": torch,
        }

    def give(self, moment: str) -> None:
        """Set the inputs that belong to a moment."""
        for name, text in self.record.names.get("given", {}).get(moment, {}).items():
            if name in self.record.arrays:
                eval(text, {}, {**self.scope, "given": self.record.arrays[name].tolist()})

    def see(self, moment: str) -> Found:
        """Evaluate the expressions of a moment."""
        self.give(moment)
        scope = self.scope
        found = {name: eval(text, {}, scope) for name, text in self.record.expressions(moment, self.suffix).items()}
        return {name: torch.as_tensor(value) for name, value in found.items()}

    def run(self) -> Found:
        found = {"token_ids": padded_ids(self.classifier), "token_ids_in_end_order": self.ids_in_end_order()}
        found |= self.see("start")
        start = copy.deepcopy(self.adaptation.state_dict())
        if self.record.meta["kind"] == "fit":
            found |= self.at_start() | self.fit()
        states = {"start": start, "final": copy.deepcopy(self.adaptation.state_dict())}
        for moment in ("final", "averaged", "authors", "begun", "second", "solved"):
            if self.record.expressions(moment, self.suffix):
                self.before(moment, states)
                found |= self.see(moment)
        return found

    def before(self, moment: str, states: dict[str, Found]) -> None:
        """Bring the method to a moment: from its start, or from where the recorded steps led."""
        if moment in ("averaged", "authors"):
            self.adaptation.load_state_dict(states["start"])
            own = config.build(self.settings["engine"], place="engine")
            optimizer, schedule = (own.optimizer, own.schedule) if moment == "authors" else (self.sgd, constant)
            self.extra["followed"] = self.follow(optimizer, schedule, averaged=moment == "averaged")
        if moment == "begun":
            self.adaptation.load_state_dict(states["final"])
            with torch.no_grad():
                self.adaptation.begin_phase(1, self.learned())
        if moment == "second":
            self.extra["followed"] = self.follow(
                partial(self.sgd, rate=self.record.meta["lr_second"]), constant, phase=1
            )
        if moment == "solved":
            self.adaptation.load_state_dict(states[self.record.names.get("solve_from", "final")])
            self.adaptation.fit_closed_form(self.learned())

    def learned(self, image: Tensor | None = None) -> Any:
        """What a method without gradients may use; features `[N, D]` replace those of the support set."""
        views = next(self.inputs[name] for name in ("support_views", "support_images", "images") if name in self.inputs)
        views = views if "support_views" in self.inputs else views[None]
        through = partial(self.classifier.encode_image, start=self.classifier.image_cut)
        seen = SimpleNamespace(scale=self.clip.scale, text=self.classifier.class_embeddings().detach())
        with torch.no_grad():
            support = through(self.classifier.prefix(views)) if image is None else image[None]
            seen.support = LabelledFeatures(support, self.task.support.labels)
            if "val_images" in self.inputs:
                image = through(self.classifier.prefix(self.inputs["val_images"][None]))
                seen.validation = LabelledFeatures(image, self.inputs["val_labels"])
        return seen

    def at_start(self) -> Found:
        """Loss and gradients at the start; of a rule, what it makes of them."""
        self.extra["step"] = 0
        self.give("along")
        rule, _ = gradient_rule_and_average(self.settings)
        each = self.gradients()
        if rule is None:
            gradients = {name: sum(found[name] for found in each.values()) for name in next(iter(each.values()))}
        else:
            bent = rule({loss: [*found.values()] for loss, found in each.items()})
            gradients = dict(zip(dict(self.adaptation.named_parameters()), bent, strict=True))
        shown = {
            f"grad/{name}": part(gradients, ours)
            for name, ours in self.record.inits.items()
            if whole(ours) in gradients
        }
        return {"loss": self.total()} | shown

    def gradients(self) -> dict[str, dict[str, Tensor]]:
        """Gradients of each loss, by learned tensor."""
        parameters = dict(self.adaptation.named_parameters())
        return {
            name: dict(
                zip(
                    parameters,
                    torch.autograd.grad(loss, [*parameters.values()], retain_graph=True, materialize_grads=True),
                    strict=True,
                )
            )
            for name, loss in self.losses().items()
        }

    def fit(self) -> Found:
        """Full-batch steps of plain SGD; where an output follows the steps, it is seen before each of them."""
        along = self.record.expressions("along", self.suffix)
        seen: dict[str, list[Any]] = {name: [] for name in along}
        losses = []
        for step in range(STEPS):
            self.extra["step"] = step
            self.give("along")
            scope = self.scope
            for name, text in along.items():
                seen[name].append(torch.as_tensor(eval(text, {}, scope)))
            losses.append(self.follow(self.sgd, constant, steps=1))
        found = {"trajectory/loss": torch.cat(losses)} | {name: torch.stack(values) for name, values in seen.items()}
        learned = {**dict(self.adaptation.named_buffers()), **dict(self.adaptation.named_parameters())}
        return found | {f"final/{name}": part(learned, ours).clone() for name, ours in self.record.inits.items()}

    def sgd(self, parameters: Any, rate: float | None = None) -> torch.optim.Optimizer:
        held = [dict(self.adaptation.named_parameters())[name] for name in self.record.names.get("held", [])]
        moved = [p for p in parameters if not any(p is other for other in held)]
        return torch.optim.SGD(moved, lr=rate or self.record.meta["lr"])

    def follow(
        self, make: Callable[..., Any], schedule: Any, steps: int = STEPS, averaged: bool = False, phase: int = 0
    ) -> Tensor:
        """Steps on the full batch; the loss before each."""
        rule, average = gradient_rule_and_average(self.settings)
        count = len(self.inputs["labels"])
        kept = InMemoryFeatures(self.start[None], self.inputs["labels"], self.classifier.image_cut)
        with trained_alone(self.adaptation, phase) as trained:
            optimizer = make(trained)
            fit = Fit(
                accelerator=Accelerator(cpu=self.device == "cpu"),
                learner=self.learner,
                optimizer=optimizer,
                schedule=schedule(optimizer, steps),
                batches=BatchSampler(count, count, 1, seed=0),
                source=WithTeacherFeatures(kept, [features[None] for features in self.teacher_features])
                if self.teacher_features
                else kept,
                epochs=steps,
                seed=0,
                kind=Classification(),
                rule=rule,
                average=average if averaged else None,
            )
            history = fit.run(TrainState(), lambda progress: None).history
        return torch.tensor([row["loss"] for row in history])

    def ids_in_end_order(self) -> Tensor | None:
        node = self.settings["method"]["adaptation"]
        if "class_token_position" not in node:
            return None
        end = {**self.settings["method"], "adaptation": {**node, "class_token_position": "end"}}
        adaptation = adaptation_maker({**self.settings, "method": end})(self.clip, self.task).to(self.device)
        return padded_ids(Classifier(self.clip, adaptation, self.task.class_names))


def whole(ours: str) -> str:
    """Our tensor's name, where a record has an entry of it alone: context[1] is an entry of context."""
    return ours.partition("[")[0]


def in_shape(values: Any, shape: Sequence[int], name: str) -> Any:
    """Values in a shape that may have other dimensions of size one: one shift of all classes is `[D]` or `[1, D]`."""
    assert [n for n in values.shape if n > 1] == [n for n in shape if n > 1], name
    return values.reshape(shape)


def part(tensors: dict[str, Tensor], ours: str) -> Tensor:
    """Our tensor of this name, or its entry."""
    name, _, index = ours.partition("[")
    return tensors[name][int(index.removesuffix("]"))] if index else tensors[name]


def padded_ids(classifier: Classifier) -> Tensor:
    """Token ids `[C, 77]`, or `[templates, C, 77]` of an ensemble."""
    layout = classifier.clip.tokenize(classifier.adaptation.prompts(classifier.class_names)).layout.to("cpu")
    found = rows_of_prompts(layout)
    ids = torch.zeros(len(found), 77, dtype=torch.long)
    for n, rows in enumerate(found):
        ids[n, : len(rows)] = layout.ids[rows]
    return ids.unflatten(0, layout.shape).transpose(0, 1).squeeze(0)
