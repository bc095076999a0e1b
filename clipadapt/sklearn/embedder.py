"""A scikit-learn transformer from images to CLIP's features."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from torch.nn.functional import normalize

from clipadapt.adaptations.base import Adaptation
from clipadapt.data.tasks import UNLABELLED, Split
from clipadapt.engine.accelerator import accelerator_for
from clipadapt.engine.loaders import make_loader
from clipadapt.features.loader import no_progress
from clipadapt.features.task_views import samples
from clipadapt.model import AdaptedCLIP
from clipadapt.runs.methods import placeholder_task, training_settings
from clipadapt.sklearn.answers import as_input_errors
from clipadapt.sklearn.backbones import compose_backbone, shared_backbone
from clipadapt.sklearn.pictures import as_pictures, to_images
from clipadapt.tasks import Classification
from clipadapt.threads import limited_threads


class CLIPEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A transformer from images to features `[N, D]` of a frozen backbone, for any classifier after it.

    It learns nothing. What it computes is kept on disk, as by `clipadapt.finetune`, so that no image is encoded twice.

    Args:
        backbone: a name, as for `clipadapt.load_backbone`.
        pretrained: the weights, as for `clipadapt.load_backbone`.
        unit: whether features are divided by their length, for what compares directions, such as nearest neighbours;
            they stay as they are for `CLIPFeatureClassifier` and for regressions, as in CLIP's linear probe (Radford et
            al., ICML 2021, section 3.2).
        cpu: whether to compute on the CPU even if there is a GPU.
        workers: number of processes that read images.
        config_dir: a folder with YAML files and modules of your own.

    >>> import numpy as np
    >>> from clipadapt.sklearn import CLIPEmbedder
    >>> CLIPEmbedder(cpu=True).fit_transform(np.zeros((2, 8, 8, 3), dtype=np.uint8)).shape
    (2, 128)
    """

    def __init__(
        self,
        backbone: str = "tiny",
        pretrained: str | None = "default",
        unit: bool = False,
        cpu: bool = False,
        workers: int = 0,
        config_dir: str | None = None,
    ) -> None:
        self.backbone = backbone
        self.pretrained = pretrained
        self.unit = unit
        self.cpu = cpu
        self.workers = workers
        self.config_dir = config_dir

    def fit(self, X: Any, y: Any = None) -> "CLIPEmbedder":
        """Check the images, and return this transformer.

        Raises:
            ValueError: X holds no images that can be used.
        """
        with as_input_errors():
            as_pictures(X)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return features `[N, D]` of images, in float32.

        Args:
            X: a list of paths or PIL images, an array `[N, height, width, 3]` of 8-bit pixels, or a column of a table.

        Raises:
            ValueError: X holds no images that can be used.
            WeightsError: unknown or unusable weights.
        """
        with as_input_errors():
            images = to_images(as_pictures(X))
            return self._encode(Split(images, [UNLABELLED] * len(images)))

    def _encode(self, split: Split) -> np.ndarray:
        config = compose_backbone(self.backbone, self.pretrained, self.config_dir)
        engine = {**config["engine"], "cpu": self.cpu, "workers": self.workers}
        settings = training_settings({**config, "engine": engine})
        clip = shared_backbone(config, self.cpu)
        loader = make_loader(accelerator_for(settings), settings, no_progress, Classification())
        model = AdaptedCLIP(clip, Adaptation(clip, placeholder_task(clip, [], [], (0, 0, 0))))
        with limited_threads(clip.parameters):
            features = samples(loader, model, split, 1, "none").image[0].float()
        return np.asarray((normalize(features, dim=-1) if self.unit else features).cpu())

    @property
    def _n_features_out(self) -> int:
        """Return the number of features, for their names, such as clipembedder0."""
        clip = shared_backbone(compose_backbone(self.backbone, self.pretrained, self.config_dir), self.cpu)
        return clip.width or self.transform(np.zeros((1, *clip.image_size, 3), dtype=np.uint8)).shape[1]

    def __sklearn_is_fitted__(self) -> bool:
        """Return True: there is nothing to fit."""
        return True

    def __sklearn_tags__(self) -> Tags:
        """Return scikit-learn's tags: nothing to fit, and images in place of numbers in two dimensions."""
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags
