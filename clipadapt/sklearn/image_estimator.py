"""A scikit-learn classifier of images, by any method on any backbone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from sklearn.utils import Tags

from clipadapt import config as configuration
from clipadapt.api import check_method_overrides, run_settings
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.data import Task
from clipadapt.data.class_words import other_words
from clipadapt.data.tasks import Split
from clipadapt.errors import InputError
from clipadapt.runs.learned import learned_from, trained_backbone
from clipadapt.runs.methods import adaptation_maker, placeholder_task, training_settings
from clipadapt.runs.predictor import Predictor
from clipadapt.runs.result import Result
from clipadapt.runs.tasks import validated_images
from clipadapt.runs.train import train_and_evaluate
from clipadapt.sklearn.answers import LogitsClassifier, as_input_errors
from clipadapt.sklearn.backbones import compose_backbone, shared_backbone
from clipadapt.sklearn.labels import (
    MOST_HELD_OUT,
    check_held_out,
    counted_labels,
    hold_out,
    names_for_clip,
    sorted_classes,
)
from clipadapt.sklearn.learned import PLACE, LearnedState, load_state
from clipadapt.sklearn.pictures import as_pictures, to_images

NAME = "images"


class CLIPClassifier(LogitsClassifier):
    """A classifier of images, by a method on a frozen backbone; `fit` does what `clipadapt.finetune` does.

    All images given to `fit` are learned from, but for those that `validation_images` holds out.

    Args:
        method: a name in conf/method, or in `config_dir`.
        backbone: a name, as for `clipadapt.load_backbone`.
        pretrained: the weights, as for `clipadapt.load_backbone`.
        class_names: names for CLIP of labels, one or several, as {0: "cat", 1: ["dog", "puppy"]}; labels that are text
            need none.
        templates: sentences with `{}` for the class name.
        views: stored random views of each image; 0 for the centre crop, None for fresh views every epoch.
        overrides: settings as on the command line, such as "engine.epochs=50".
        seed: draws what the method draws, and the images that are held out.
        validation_images: images of each class, at most half of them, that are held out of what is learned from, for
            methods that choose on a validation split; None for 4 where the method does, and none where it doesn't.
        cpu: whether to compute on the CPU even if there is a GPU.
        workers: number of processes that read images.
        config_dir: a folder with YAML files and modules of your own.

    Attributes:
        classes_: the C labels, sorted.
        result_: the `Result`, with metrics, history and record; it has no test images.

    >>> import numpy as np
    >>> from clipadapt.sklearn import CLIPClassifier
    >>> images = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (0, 250)])
    >>> CLIPClassifier("zero_shot", cpu=True).fit(images, ["a dark room", "a white wall"]).predict_proba(images).shape
    (2, 2)
    """

    _predictor: Predictor | None = None

    def __init__(
        self,
        method: str = "tip_adapter_f",
        backbone: str = "tiny",
        pretrained: str | None = "default",
        class_names: Mapping[Any, str | Sequence[str]] | None = None,
        templates: Sequence[str] = ("a photo of a {}.",),
        views: int | None = 8,
        overrides: Sequence[str] = (),
        seed: int = 1,
        validation_images: int | None = None,
        cpu: bool = False,
        workers: int = 0,
        config_dir: str | None = None,
    ) -> None:
        self.method = method
        self.backbone = backbone
        self.pretrained = pretrained
        self.class_names = class_names
        self.templates = templates
        self.views = views
        self.overrides = overrides
        self.seed = seed
        self.validation_images = validation_images
        self.cpu = cpu
        self.workers = workers
        self.config_dir = config_dir

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "CLIPClassifier":
        """Fit the method to images and their labels.

        Args:
            X: a list of paths or PIL images, an array `[N, height, width, 3]` of 8-bit pixels, or a column of a table.
            y: the labels `[N]`.
            sample_weight: weight of each image's loss, `[N]`. Images of weight 0 are left out; only linear_probe counts
                the others by weights that differ.

        Raises:
            ValueError: images, labels, weights or settings that can't be used.
            WeightsError: unknown or unusable weights.
            DivergenceError: a loss that isn't finite.
        """
        with as_input_errors():
            pictures = as_pictures(X)
            kept, counted, weights = counted_labels(y, sample_weight, len(pictures))
            classes, labels = sorted_classes(counted)
            names = names_for_clip(classes, self.class_names)
            images = Split(to_images([pictures[place] for place in kept]), labels, weights=weights)
            self.result_ = self._fit(images, names)
        self.classes_, self._predictor = classes, None
        return self

    def logits(self, X: Any) -> np.ndarray:
        """Return the logits `[N, C]` of images; kinds of X as of `fit`."""
        pictures = as_pictures(X)
        if self._predictor is None:
            self._predictor = self._make_predictor()
        self._predictor.reset(len(pictures))  # a method that adapts along a stream of images starts one with each call
        return self._predictor.decision(pictures).numpy()

    def _fit(self, images: Split, names: Mapping[str, list[str]]) -> Result:
        """Fit the method to images, some of which are held out if it chooses on a validation split."""
        self._check_views()
        overrides = (self.overrides,) if isinstance(self.overrides, str) else tuple(self.overrides)
        check_method_overrides(overrides)
        clip = shared_backbone(compose_backbone(self.backbone, self.pretrained, self.config_dir), self.cpu)
        task = self._task(images, images.select([]), names)
        engine = {"cpu": self.cpu, "workers": self.workers}
        config = run_settings(clip, task, self.method, overrides, self.config_dir, engine)
        if config["method"]["pseudo_labels"] is not None:
            raise InputError(f"method {self.method} labels images itself, and learns nothing from y: use finetune")
        count = check_held_out(self.validation_images)
        if count is None:
            count = MOST_HELD_OUT * needs_validation(config, clip, task)
        learned, held = hold_out(images.labels, count, self.seed)
        task = validated_images(self._task(images.select(learned), images.select(held), names), config)
        with torch.random.fork_rng(devices=[]):
            return train_and_evaluate(config, clip, task, None, Console(quiet=True), training_settings(config))

    def _check_views(self) -> None:
        views = self.views
        if not (views is None or (isinstance(views, int) and not isinstance(views, bool) and views >= 0)):
            raise InputError(f"views={views!r} does not fit: it must be a whole number (at least 0), or None")

    def _task(self, support: Split, validation: Split, names: Mapping[str, list[str]]) -> Task:
        """Return the task of learning from images."""
        most = max(support.labels.count(label) for label in {*support.labels})
        templates = [self.templates] if isinstance(self.templates, str) else [*self.templates]
        if not templates or not all(isinstance(one, str) and "{}" in one for one in templates):
            raise InputError(f"templates must be sentences with {{}} for the class name, and are {templates}")
        return Task(
            name=NAME,
            class_names=[*names],
            templates=templates,
            shots=most,
            seed=self.seed,
            views=self.views,
            support=support,
            validation=validation,
            tests={},
            support_indices=[],
            validation_indices=[],
            words=other_words(names),
        )

    def _make_predictor(self) -> Predictor:
        """Return the predictor of what was learned, on the backbone that it was learned on."""
        config = configuration.saved_settings(self.result_.config, Path(PLACE), self.config_dir)
        clip = shared_backbone(config, config["engine"]["cpu"])
        if clip.fingerprint != self.result_.record["backbone"]["fingerprint"]:
            trained_backbone(Path(PLACE), self.result_.record, config)  # says which weights are needed
        return learned_from(self.result_, config, clip).predictor()

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds: parameters, labels, and of what was learned no object of ours."""
        state = {name: value for name, value in super().__getstate__().items() if name not in ("_predictor", "result_")}
        if "result_" in vars(self):
            found = self.result_
            record = {"metrics": found.metrics.copy(), "history": found.history, "record": found.record}
            state["_learned"] = LearnedState(found.config, record, found.tensors).dump()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what a pickle held; the backbone is loaded when images are to be classified.

        Raises:
            UserError: what was learned is damaged.
        """
        learned = state.pop("_learned", None)
        super().__setstate__(state)
        if learned is not None:
            found = load_state(learned)
            self.result_ = Result(config=found.settings, tensors=found.tensors, **found.record)

    def __sklearn_tags__(self) -> Tags:
        """Return scikit-learn's tags: images in place of numbers in two dimensions."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


def needs_validation(config: dict[str, Any], clip: DualEncoder, task: Task) -> bool:
    """Return whether a method makes a choice on validation images."""
    shape = (1, len(task.support), clip.width or 0)
    place = placeholder_task(clip, task.class_names, task.templates, shape, task.words)
    return adaptation_maker(config)(clip, place).capabilities.needs_validation
