"""Class proxies in image space that follow a stream of known length."""

import math
from typing import Annotated

from annotated_types import Ge, Gt, Interval
from torch import Tensor
from torch.nn import functional

from clipadapt.errors import UserError
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.stream import Stream
from clipadapt.test_time.views import Count, ViewSummary, log_probabilities, of_classes, unit_embeddings

Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]


class OnlineProxies(Stream):
    """OnZeta: online zero-shot classification (Qian & Hu, ECCV 2024, arXiv:2408.13320).

    The label by text is CLIP's, balanced by a dual variable of each class, so that no class gets less than its share.
    The label by vision is that of a proxy of each class in image space: the proxies start at the class embeddings, and
    after each image make a step towards its balanced label by text. An image's probabilities are a mean of both labels;
    the weight of vision grows with the square root of the share of the stream that is over.

    Args:
        images: number of images that are encoded together; they are adapted to one after another.
        text_temperature: temperature of the cosines with the class embeddings.
        image_temperature: temperature of the cosines with the proxies.
        proxy_step: step size of the proxies at the first image; it falls with the square root of the image's number.
        dual_step: step size of the dual variables at the first image; it falls alike.
        least_share: least share of each class among the balanced labels, as a fraction of one over the classes.
        image_weight: weight of the label by vision at the stream's last image.
    """

    moves_text = True

    def __init__(
        self,
        images: Count = 8,
        text_temperature: Positive = 0.01,
        image_temperature: Positive = 0.04,
        proxy_step: NotNegative = 0.5,
        dual_step: NotNegative = 20.0,
        least_share: NotNegative = 1.0,
        image_weight: Annotated[float, Interval(ge=0, le=1)] = 0.8,
    ) -> None:
        super().__init__(1, images)
        self.text_temperature, self.image_temperature = text_temperature, image_temperature
        self.proxy_step, self.dual_step = proxy_step, dual_step
        self.least_share, self.image_weight = least_share, image_weight

    def look(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> ViewSummary:
        """Return the feature and the logits of each image, after a check that the stream has that many."""
        self.check_length(len(x))
        return super().look(classifier, x, text)[:, 0]

    def check_length(self, images: int) -> None:
        """Check that the stream's length is known, and that further images are within it.

        Raises:
            UserError: it is unknown, or the images are more.
        """
        if self.length is None:
            raise UserError(
                "this method weighs each image by its place in the stream, and nobody said how many images come: call "
                "predictor.reset(length=N) first, or give all images to clipadapt predict"
            )
        if self.count + images > self.length:
            raise UserError(
                f"the stream was to have length={self.length}, and image {self.count + images} came: start a new one "
                "with predictor.reset(length=N)"
            )

    def step(self, classifier: Classifier, looked: ViewSummary, text: Tensor | None) -> dict[str, Tensor]:
        """Return the labels of one image and their mean; then make a step with the proxies and dual variables."""
        if not self.tensors:
            proxies = of_classes(classifier, unit_embeddings(text))
            self.tensors = {"proxies": proxies, "dual": proxies.new_zeros(len(proxies))}
        proxies, dual, number = self.tensors["proxies"], self.tensors["dual"], self.count + 1
        cosines = looked.logits / classifier.clip.scale
        by_text = (cosines / self.text_temperature + dual).softmax(dim=-1)
        by_vision = (proxies @ looked.feature / self.image_temperature).softmax(dim=-1)
        dual = dual - self.dual_step / math.sqrt(number) * (by_text - self.least_share / len(dual))
        moved = (by_vision - by_text).outer(looked.feature) / self.image_temperature
        moved = functional.normalize(proxies - self.proxy_step / math.sqrt(number) * moved, dim=-1)
        self.tensors = {"proxies": moved, "dual": dual.clamp_min(0)}
        share = self.image_weight * math.sqrt(number / (self.length or number))
        mean = share * by_vision + (1 - share) * by_text
        return {"text": by_text, "vision": by_vision, "mean": mean, "logits": log_probabilities(mean)}
