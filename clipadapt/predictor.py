"""Prediction of images of any kind."""

import copy
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from clipadapt.data import seeds
from clipadapt.data.images import digest, file_bytes, open_image, pixel_bytes, to_rgb
from clipadapt.data.transforms import RandomCrops
from clipadapt.errors import UserError
from clipadapt.files import write
from clipadapt.model import Classifier
from clipadapt.test_time.base import TestTimeMethod

Picture = str | Path | Image.Image | Tensor
BATCH = 64


class Predictor:
    """An adapted classifier for images of any kind.

    Args:
        classifier: CLIP through an adaptation.
        test_time: what adapts to the images; nothing where None.
    """

    def __init__(self, classifier: Classifier, test_time: TestTimeMethod | None = None) -> None:
        self.classifier = classifier.eval()
        self.test_time = test_time

    @property
    def class_names(self) -> list[str]:
        """The C classes, in the order of the probabilities."""
        return self.classifier.class_names

    def for_classes(self, class_names: Sequence[str]) -> "Predictor":
        """The same adaptation for other class names; what earlier images left stays here.

        Raises:
            UserError: what was learned belongs to its classes one by one.
        """
        other = Predictor(self.classifier.for_classes(class_names), copy.deepcopy(self.test_time))
        other.reset()
        return other

    def predict_proba(self, images: Picture | Iterable[Picture]) -> Tensor:
        """Probabilities `[B, C]`, on the CPU.

        Where the method learns along a stream of images, these go on from those of earlier calls.

        Args:
            images: B paths, PIL images, or tensors `[3, height, width]` of pixels as the backbone's transform makes
                them; or one of these.

        Raises:
            UserError: no images, a file that is no readable image, a tensor of another shape or where views are to be
                cropped, or something else.
        """
        single = isinstance(images, str | Path | Image.Image) or (isinstance(images, Tensor) and images.ndim == 3)
        pictures: list[Picture] = [images] if single else list(images)  # type: ignore[list-item, arg-type]
        at_once = BATCH if self.test_time is None else self.test_time.images
        batches = [pictures[first : first + at_once] for first in range(0, len(pictures), at_once)]
        if not batches:
            raise UserError("there are no images to classify")
        with torch.no_grad():
            text = None if self.classifier.adaptation.capabilities.conditional else self.classifier.class_embeddings()
            return torch.cat([self._logits(batch, text).float().softmax(dim=-1).cpu() for batch in batches])

    def predict(self, images: Picture | Iterable[Picture]) -> list[str]:
        """The most probable class name of each image; arguments as of `predict_proba`."""
        return [self.class_names[i] for i in self.predict_proba(images).argmax(dim=1).tolist()]

    def reset(self) -> None:
        """Forget what earlier images left."""
        if self.test_time is not None:
            self.test_time.reset()

    def save_state(self, path: str | Path) -> None:
        """Write what earlier images left to a safetensors file.

        Raises:
            UserError: nothing is carried from image to image, or the file can't be written.
        """
        content = save(self._stream().state_dict(), {"belongs_to": self._belongs_to()})
        try:
            write(Path(path), content)
        except OSError as error:
            raise UserError(f"the state can't be written to {path}: {error.strerror}") from error

    def load_state(self, path: str | Path) -> None:
        """Go on from what a file of `save_state` has.

        Raises:
            UserError: nothing is carried from image to image, the file can't be read, or it is of another classifier.
        """
        stream, device = self._stream(), str(self.classifier.clip.device)
        try:
            with safe_open(path, "pt", device=device) as file:
                belongs_to = (file.metadata() or {}).get("belongs_to")
                state = {name: file.get_tensor(name) for name in sorted(file.keys())}
        except (OSError, SafetensorError) as error:
            raise UserError(f"there is no state to be read in {path}: {error}") from error
        if belongs_to != self._belongs_to():
            raise UserError(f"the state in {path} was left by images of other classes, or with another backbone")
        stream.load_state_dict(state)

    def _stream(self) -> TestTimeMethod:
        if self.test_time is None or not self.test_time.stream:
            raise UserError("this method carries nothing from image to image: there is no state to save or to load")
        return self.test_time

    def _belongs_to(self) -> str:
        return json.dumps({"backbone": self.classifier.clip.fingerprint, "class_names": self.class_names})

    def _logits(self, pictures: Sequence[Picture], text: Tensor | None) -> Tensor:
        clip = self.classifier.clip
        if self.test_time is None:
            pixels = torch.stack([self._pixels(picture) for picture in pictures]).to(clip.device, clip.dtype)
            return self.classifier.output(pixels, text=text).logits
        views = (self._views(picture, self.test_time.views) for picture in pictures)
        x = torch.stack([self.classifier.prefix(some.to(clip.dtype)) for some in views])
        return self.test_time.logits(self.classifier, x, text)

    def _views(self, picture: Picture, count: int) -> Tensor:
        """Views `[V, 3, height, width]` on the device: what the backbone reads, then random crops."""
        clip = self.classifier.clip
        first = self._pixels(picture)[None].to(clip.device)
        if count == 1:
            return first
        if isinstance(picture, Tensor):
            raise UserError(
                f"this method looks at {count} views of each image, and a tensor can't be cropped into them: give a "
                "path or a PIL image"
            )
        image, crops = _opened(picture), RandomCrops(clip.preprocess)
        content = digest(pixel_bytes(image) if isinstance(picture, Image.Image) else file_bytes(picture))
        drawn = [seeds.of_view(content, view) for view in range(1, count)]
        return torch.cat([first, crops.pixels([crops.read(image)] * len(drawn), drawn, clip.device)])

    def _pixels(self, picture: Picture) -> Tensor:
        if not isinstance(picture, Tensor):
            return self.classifier.clip.transform(_opened(picture))
        shape = [3, *self.classifier.clip.image_size]
        if list(picture.shape) != shape:
            raise UserError(
                f"a tensor must be pixels {shape} as the backbone reads them, and one is {list(picture.shape)}"
            )
        return picture


def _opened(picture: str | Path | Image.Image) -> Image.Image:
    if isinstance(picture, Image.Image):
        return to_rgb(picture)
    if not isinstance(picture, str | Path):
        raise UserError(f"an image must be a path, a PIL image or a tensor, and one is {type(picture).__name__}")
    return open_image(Path(picture))
