"""Prediction by one forward pass."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from clipadapt.classifier import Classifier
from clipadapt.data.images import open_image, to_rgb
from clipadapt.errors import UserError

Picture = str | Path | Image.Image | Tensor
BATCH = 64


class Predictor:
    """An adapted classifier for images of any kind.

    Args:
        classifier: CLIP through an adaptation.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier.eval()

    @property
    def class_names(self) -> list[str]:
        """The C classes, in the order of the probabilities."""
        return self.classifier.class_names

    def for_classes(self, class_names: Sequence[str]) -> "Predictor":
        """The same adaptation for other class names.

        Raises:
            UserError: what was learned belongs to its classes one by one.
        """
        return Predictor(self.classifier.for_classes(class_names))

    def predict_proba(self, images: Picture | Iterable[Picture]) -> Tensor:
        """Probabilities `[B, C]`, on the CPU.

        Args:
            images: B paths, PIL images, or tensors `[3, height, width]` of pixels as the backbone's transform makes
                them; or one of these.

        Raises:
            UserError: no images, a file that is no readable image, a tensor of another shape, or something else.
        """
        single = isinstance(images, str | Path | Image.Image) or (isinstance(images, Tensor) and images.ndim == 3)
        pictures: list[Picture] = [images] if single else list(images)  # type: ignore[list-item, arg-type]
        batches = [pictures[first : first + BATCH] for first in range(0, len(pictures), BATCH)]
        if not batches:
            raise UserError("there are no images to classify")
        with torch.no_grad():
            text = None if self.classifier.adaptation.conditional else self.classifier.class_weights()
            return torch.cat([self._probabilities(batch, text) for batch in batches])

    def predict(self, images: Picture | Iterable[Picture]) -> list[str]:
        """The most probable class name of each image; arguments as of `predict_proba`."""
        return [self.class_names[i] for i in self.predict_proba(images).argmax(dim=1).tolist()]

    def _probabilities(self, pictures: Sequence[Picture], text: Tensor | None) -> Tensor:
        clip = self.classifier.clip
        pixels = torch.stack([self._pixels(picture) for picture in pictures]).to(clip.device, clip.dtype)
        return self.classifier.output(pixels, text=text).logits.float().softmax(dim=-1).cpu()

    def _pixels(self, picture: Picture) -> Tensor:
        if isinstance(picture, Tensor):
            sides = self.classifier.clip.preprocess["size"]
            shape = [3, sides, sides] if isinstance(sides, int) else [3, *sides]
            if list(picture.shape) != shape:
                raise UserError(
                    f"a tensor must be pixels {shape} as the backbone reads them, and one is {list(picture.shape)}"
                )
            return picture
        if not isinstance(picture, str | Path | Image.Image):
            raise UserError(f"an image must be a path, a PIL image or a tensor, and one is {type(picture).__name__}")
        image = to_rgb(picture) if isinstance(picture, Image.Image) else open_image(Path(picture))
        return self.classifier.clip.transform(image)
