"""Predictions for images given as paths, PIL images, arrays or tensors."""

import copy
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from PIL import Image
from torch import Tensor

from clipadapt.checksums import DAMAGE, dump_checked_tensors, read_checked_tensors, reason
from clipadapt.data import seeds
from clipadapt.data.framing import CROPPED, Framing
from clipadapt.data.inputs import Picture, as_list, check_pixels, content_digest
from clipadapt.data.transforms import RandomCrops
from clipadapt.errors import UserError, join_names
from clipadapt.files import write_atomically
from clipadapt.notebook import html_table
from clipadapt.paths import checked_path
from clipadapt.tasks import Classification, Classifier, Head, TaskKind
from clipadapt.tasks.base import ClassNames, finite
from clipadapt.tasks.uncertainty import KnownScores, check_fraction
from clipadapt.test_time.base import TestTimeMethod
from clipadapt.threads import limited_threads

if TYPE_CHECKING:
    from clipadapt.runs.learned import LearnedModel

BATCH, SHOWN = 64, 5
NO_TARGETS = torch.empty(0)
"""In the place of a batch's labels, which nobody knows."""


class Predictor:
    """Predictions of an adapted CLIP for images given as paths, PIL images, arrays or tensors.

    Args:
        model: the adapted CLIP with its head.
        test_time: the test-time method; None for none.
        kind: the kind of task; None for classification.
        framing: how images that aren't square are seen.
        known: what images of the known classes say of further ones; None if there were none to say it.
        learned: what a run learned, of which this predictor is made; None if it was made by hand.

    >>> result = finetune(load_backbone(), load_task("digits", shots=1), "zero_shot", cpu=True, workers=0)
    >>> predictor = Predictor.from_pretrained(result.save_pretrained("packed"), device="cpu")
    >>> len(predictor.predict(load_task("digits").support.images[:2]))
    2
    """

    def __init__(
        self,
        model: Head,
        test_time: TestTimeMethod | None = None,
        kind: TaskKind | None = None,
        framing: Framing = CROPPED,
        known: KnownScores | None = None,
        learned: "LearnedModel | None" = None,
    ) -> None:
        self.model = model.eval()
        self.test_time = test_time
        self.kind = kind or Classification()
        self.framing = framing
        self.known = known
        self.learned = learned

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what a pickle or a copy holds: what this predictor was made of, and the state of its stream.

        Raises:
            UserError: this predictor isn't that of a run.
        """
        streams = self.test_time is not None and self.test_time.adapts_to == "stream"
        return _restore, (self._of_a_run(), self._stream().state_dict() if streams else None)

    def _of_a_run(self) -> "LearnedModel":
        if self.learned is None:
            raise UserError("only predictors of runs can be saved, pickled or copied, and this one was made by hand")
        return self.learned

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write an artifact: what was learned, as a folder for others, which `clipadapt.load` reads; return its path.

        It has the learned tensors (`adaptation.safetensors`), what is known of them (`config.json`) and a model card
        (`README.md`), and nothing of this machine. The backbone's weights aren't in it.

        Raises:
            UserError: the folder is there and isn't empty, the run names files of this machine, or the predictor was
                made by hand.
            WriteError: the folder can't be written.
        """
        from clipadapt.runs.artifact import write_artifact  # needs this module

        return write_artifact(self._of_a_run(), checked_path(folder, "the folder of the artifact"))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
    ) -> str:
        """Write an artifact to a repository of the Hugging Face hub, which is made if it isn't there; return its URL.

        A model card that is there already stays.

        Args:
            repo_id: "user/name".
            private: whether a new repository is private; None for the account's usual.
            token: of the hub; None for that of `hf auth login`.
            revision: the branch, which is made if it isn't there; None for main.
            commit_message: None for "clipadapt: METHOD on TASK".

        Raises:
            UserError: as of `save_pretrained`; or the hub can't be reached, or refuses.
        """
        from clipadapt.runs.model_hub import push  # needs this module

        return push(self._of_a_run(), repo_id, private, token, revision, commit_message)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        device: str | None = None,
        config_dir: str | Path | None = None,
        pretrained: str | None = None,
    ) -> "Predictor":
        """Load a predictor from a repository of the Hugging Face hub, or a folder; see `clipadapt.load`."""
        from clipadapt.runs.learned import load_predictor  # needs this module

        return load_predictor(source, device, config_dir, pretrained, revision, token)

    def __repr__(self) -> str:
        """Return the classes, the backbone and the device."""
        clip = self.model.clip
        return f"<Predictor of {self._classes_text()} with {clip.source['name']} on {clip.device}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        clip = self.model.clip
        unsure = "reject=… and predict_set" if self.known else "the run had no validation images to set a threshold by"
        rows = [
            ("classes", self._classes_text()),
            ("backbone", f"{clip.source['name']} on {clip.device}"),
            ("at test time", "nothing" if self.test_time is None else type(self.test_time).__name__),
            ("unsure answers", unsure),
        ]
        return html_table("Predictor", rows)

    def _classes_text(self) -> str:
        names = self.class_names
        return f"{len(names):,} classes ({join_names(names, SHOWN)})" if names else "a task without classes"

    @property
    def class_names(self) -> list[str]:
        """Names of the C classes, in the order of the probabilities."""
        return self.model.class_names

    @property
    def words(self) -> Mapping[str, Sequence[str]]:
        """Names for CLIP of each class that has others than its own."""
        return self.model.words

    @property
    def logit_bias(self) -> float | None:
        """The backbone's logit bias; see `Classifier.logit_bias`."""
        return self.model.logit_bias

    def for_classes(self, class_names: ClassNames) -> "Predictor":
        """Return a predictor with the same adaptation for other class names.

        The test-time method of the new predictor starts without the state that earlier images left in this one.

        Args:
            class_names: the classes; or, by class, its name or a list of its names for CLIP.

        Raises:
            UserError: the learned tensors are class-specific, and `class_names` contains other classes; or a class has
                no name.
        """
        listed = [*class_names] if isinstance(class_names, Iterator) else class_names
        model, test_time = self.model.for_classes(listed), copy.deepcopy(self.test_time)
        names = model.class_names
        chosen = {name: [*model.words.get(name, [name])] for name in names} if isinstance(listed, Mapping) else names
        learned = None if self.learned is None else replace(self.learned, class_names=chosen)
        other = Predictor(model, test_time, self.kind, self.framing, learned=learned)
        other.reset()
        return other

    def predict_proba(self, images: Picture | Iterable[Picture], calibrate: bool = False) -> Tensor:
        """Return the probabilities `[B, C]` of the classes, on the CPU.

        Args:
            images: as of `answers`.
            calibrate: whether to scale them by the temperature of the run's validation images.

        Raises:
            UserError: as of `answers`; this kind of task has no probabilities; or the run has no temperature.
        """
        self._check_classes()
        known = self.known_scores() if calibrate else None
        if known is not None:
            known.check({}, calibrate)
        answers = self.answers(images)
        return answers if known is None else known.calibrate(answers)

    def answers(self, images: Picture | Iterable[Picture]) -> Tensor:
        """Return the model's answers in the form of the kind of task, `[B, ...]`, on the CPU.

        If the test-time method adapts along a stream of images, the images continue the stream of earlier calls.

        Args:
            images: B paths, files' bytes, open files, PIL images, arrays `[height, width, 3]` of 8-bit RGB pixels, or
                tensors `[3, height, width]` of pixels preprocessed by the backbone's transform; or a single one. They
                are the set of a test-time method that sees a whole set.

        Raises:
            UserError: there are no images, or too few for a method that sees a whole set, a file is no readable image,
                an array or a tensor has another shape or values that aren't finite, a tensor is given to a method that
                crops views, or an item has another type.
        """
        return torch.cat([self.kind.answers(outputs).cpu() for outputs in self._batches(images)])

    def similarity(self, images: Picture | Iterable[Picture]) -> Tensor:
        """Return the similarities `[B, C]` of images and classes, on the CPU: the logits without CLIP's scale.

        They are cosines where the method's logits are scaled cosines, as zero-shot's and those of learned prompts.
        Arguments and errors are those of `predict_proba`.
        """
        return self.decision(images) / self.model.clip.scale

    def decision(self, images: Picture | Iterable[Picture]) -> Tensor:
        """Return the logits `[B, C]` of the classes, on the CPU: scores whose softmax are the probabilities.

        Arguments and errors are those of `predict_proba`.
        """
        self._check_classes()
        return torch.cat([outputs.float().cpu() for outputs in self._batches(images)])

    def predict(
        self, images: Picture | Iterable[Picture], reject: float | None = None, threshold: float | None = None
    ) -> list[Any]:
        """Return the prediction for each image, such as its class name.

        Args:
            images: as of `answers`.
            reject: the share of images of the known classes that may be answered with None, "none of these"; images of
                other classes are so more often. None rejects none.
            threshold: the probability below which an answer is None, in place of `reject`; None for no threshold.

        Raises:
            UserError: as of `answers`; there are too few validation images for this share; or both are given.
        """
        if threshold is not None:
            self._check_classes()
            check_fraction(threshold, f"threshold={threshold}")
            if reject is not None:
                raise UserError("reject and threshold both say which answers are None: give one of them")
        answers = self.answers(images)
        decoded = self.kind.decode(answers, self.model)
        if threshold is not None:
            rejected = (answers.amax(dim=-1) < threshold).tolist()
        elif reject is not None:
            rejected = self.known_scores().reject(answers, reject).tolist()
        else:
            return decoded
        return [None if no else name for name, no in zip(decoded, rejected, strict=True)]

    def predict_set(self, images: Picture | Iterable[Picture], coverage: float = 0.9) -> list[list[str]]:
        """Return for each image a set of classes, the most probable first, that holds the right one.

        Args:
            images: as of `answers`.
            coverage: the share of images of the known classes whose set holds their class.

        Raises:
            UserError: as of `answers`, or there are too few validation images for this coverage.
        """
        probabilities = self.predict_proba(images)
        return self.known_scores().sets(probabilities, coverage, self.class_names)

    def known_scores(self) -> KnownScores:
        """Return what the run's validation images say of further images.

        Raises:
            UserError: the run had no validation images, or other classes than this predictor.
        """
        self._check_classes()
        if self.known is None:
            raise UserError(
                "there is nothing to set a threshold or a temperature by: the run had no validation images (a folder "
                "val/ or fewer shots give it some), or these are other classes than the run's"
            )
        if self.known.unseen:
            warnings.warn(
                f"no validation image is of {join_names(self.known.unseen, SHOWN)}, for which nothing is promised: "
                "more of such images may be rejected, or lie outside of their sets",
                stacklevel=3,
            )
        return self.known

    def _check_classes(self) -> None:
        if not self.kind.probabilities:
            raise UserError("this kind of task has no probabilities of classes: use answers or predict")

    def _batches(self, images: Picture | Iterable[Picture]) -> Iterator[Tensor]:
        """Yield the head's outputs for images, by batch."""
        pictures = as_list(images)
        self._check_count(len(pictures))
        with torch.no_grad(), limited_threads(self.model.clip.parameters):
            text, size = self.model.precompute(), self.images_at_once
            batches = (map(self.read, pictures[first : first + size]) for first in range(0, len(pictures), size))
            yield from map(finite, self._outputs(batches, text))

    def _check_count(self, count: int) -> None:
        """Check that a method that sees a whole set gets one; raises UserError."""
        if self.test_time is not None and count < self.test_time.fewest_images:
            raise UserError(
                f"this method compares the images of a whole set, and can't answer {count} alone: give all images at "
                "once, such as a folder"
            )

    @property
    def images_at_once(self) -> int:
        """The most images that go through the model in one batch."""
        return BATCH if self.test_time is None else self.test_time.images

    def read(self, picture: Picture) -> Tensor:
        """Return a picture as the method sees it: pixels `[3, height, width]`, or views of it `[V, 3, height, width]`.

        Raises:
            UserError: as of `answers`.
        """
        return self.preprocess(picture) if self.test_time is None else self._views(picture, self.test_time.views)

    def class_embeddings(self) -> Tensor | None:
        """Return the class embeddings `[C, D]` for `answers_to`; None if the method has others for each image."""
        with torch.no_grad(), limited_threads(self.model.clip.parameters):
            return self.model.precompute()

    def answers_to(self, read: Sequence[Tensor], text: Tensor | None = None) -> Tensor:
        """Return the answers `[B, ...]` to what `read` returned of B images, in one batch, on the CPU.

        A server calls it in place of `answers`: images are read elsewhere, and classes are encoded once.

        Args:
            read: of B images.
            text: what `class_embeddings` returned; computed if None.
        """
        self._check_count(len(read))
        with torch.no_grad(), limited_threads(self.model.clip.parameters):
            text = self.model.precompute() if text is None else text
            return self.kind.answers(next(self._outputs([read], text))).cpu()

    def reset(self, length: int | None = None) -> None:
        """Discard the state that earlier images left in the test-time method, to start a new stream.

        Args:
            length: number of images that the stream will have, which some methods need; None if it is unknown.

        Raises:
            UserError: a length that is no positive number.
        """
        if length is not None and (not isinstance(length, int) or length < 1):
            raise UserError(f"length={length!r} is no number of images: give a whole number, at least 1")
        if self.test_time is not None:
            self.test_time.reset(length)

    def save_state(self, path: str | Path) -> None:
        """Save the state that earlier images left in the test-time method to a safetensors file.

        Raises:
            UserError: the method carries no state from image to image, or the file can't be written.
        """
        stream = self._stream()
        texts = {"belongs_to": self._belongs_to(), "test_time": type(stream).__qualname__}
        content = dump_checked_tensors(stream.state_dict(), texts)
        write_atomically(Path(path), content)

    def load_state(self, path: str | Path) -> None:
        """Load a state from a file that `save_state` wrote.

        Raises:
            UserError: the method carries no state from image to image, the file can't be read or is damaged, or the
                state belongs to another method, other classes or another backbone.
        """
        stream, device = self._stream(), str(self.model.clip.device)
        try:
            tensors, texts = read_checked_tensors(Path(path))
        except (OSError, *DAMAGE) as error:
            raise UserError(f"there is no state to be read in {path}: {reason(error)}") from error
        if texts.get("belongs_to") != self._belongs_to():
            raise UserError(f"the state in {path} was left by images of other classes, or with another backbone")
        if texts.get("test_time") != type(stream).__qualname__:
            raise UserError(
                f"the state in {path} was left by another method, or saved before 0.1.0: save it again by this one"
            )
        stream.load_state_dict({name: value.to(device) for name, value in tensors.items()})

    def _stream(self) -> TestTimeMethod:
        if self.test_time is None or self.test_time.adapts_to != "stream":
            raise UserError("this method carries nothing from image to image: there is no state to save or to load")
        return self.test_time

    def _belongs_to(self) -> str:
        own = {name: [*self.words[name]] for name in self.class_names if name in self.words}
        words = {"words": own} if own else {}
        return json.dumps({"backbone": self.model.clip.fingerprint, "class_names": self.class_names, **words})

    def _outputs(self, batches: Iterable[Iterable[Tensor]], text: Tensor | None) -> Iterator[Tensor]:
        """Yield the head's outputs for what `read` returned of the images of each batch, read as it goes."""
        clip = self.model.clip
        if self.test_time is None:
            for batch in batches:
                yield self.model.output(torch.stack([*batch]).to(clip.device, clip.dtype), text=text).logits
            return
        seen = ((self._seen(batch, self.test_time.sees_pixels), NO_TARGETS) for batch in batches)
        for outputs, _ in self.test_time.answer(cast(Classifier, self.model), seen, text):
            yield outputs

    def _seen(self, read: Iterable[Tensor], pixels: bool) -> Tensor:
        """Return the views `[B, V, ...]` that `read` returned of B images: activations at the image cut, or pixels."""
        views = (one.to(self.model.clip.dtype) for one in read)
        return torch.stack([one if pixels else self.model.prefix(one) for one in views])

    def _views(self, picture: Picture, count: int) -> Tensor:
        """Return views `[V, 3, height, width]` on the device: the backbone's preprocessing, then random crops."""
        clip = self.model.clip
        first = self.preprocess(picture)[None].to(clip.device)
        if count == 1:
            return first
        if isinstance(picture, Tensor):
            raise UserError(
                f"this method looks at {count} views of each image, and a tensor can't be cropped into them: give a "
                "path or a PIL image"
            )
        image, crops = self.framing.read(picture), RandomCrops(clip.preprocess)
        content = content_digest(picture, image)
        drawn = [seeds.view_seed(content, view) for view in range(1, count)]
        return torch.cat([first, crops.pixels([crops.read(image)] * len(drawn), drawn, clip.device)])

    def preprocess(self, picture: Picture) -> Tensor:
        """Return a picture's pixels `[3, height, width]` as the backbone reads them; raises UserError as `answers`."""
        if isinstance(picture, Tensor):
            return check_pixels(picture, self.model.clip.image_size, self.model.clip.preprocess)
        return self.model.clip.transform(self.framing.read(picture))

    def picture(self, pixels: Tensor) -> Image.Image:
        """Return what the backbone sees, `pixels [3, height, width]` from `preprocess`, as an image for people."""
        made = self.model.clip.preprocess
        mean, std = (torch.tensor(made[key])[:, None, None] for key in ("mean", "std"))
        shown = ((pixels.float().cpu() * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
        return Image.fromarray(shown.permute(1, 2, 0).contiguous().numpy())


def _restore(learned: "LearnedModel", state: dict[str, Tensor] | None) -> Predictor:
    """Make a predictor again, with the state of its stream if it has one."""
    predictor = learned.predictor()
    if state is not None and predictor.test_time is not None:
        predictor.test_time.load_state_dict(state)
    return predictor
