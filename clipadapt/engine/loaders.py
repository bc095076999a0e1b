"""The loader of a run's images and features."""

from collections.abc import Callable

from accelerate import Accelerator

from clipadapt.engine.settings import Settings
from clipadapt.features.loader import FeatureLoader, ProgressFactory
from clipadapt.tasks import TaskKind

LoaderMaker = Callable[[Accelerator, Settings, ProgressFactory, TaskKind], FeatureLoader]


def make_loader(
    accelerator: Accelerator, settings: Settings, progress: ProgressFactory, kind: TaskKind
) -> FeatureLoader:
    """Return the loader of a run's images and features, with the limits of its settings."""
    return FeatureLoader(
        accelerator,
        settings.workers,
        settings.cache,
        settings.cache_gb,
        settings.keep_mb,
        progress,
        kind.collate,
    )
