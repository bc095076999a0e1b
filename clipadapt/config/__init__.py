"""Settings from YAML and the command line: composed by Hydra, checked together, returned as plain Python values.

Only this package and `clipadapt.cli` import Hydra and OmegaConf.
"""

from clipadapt.config.adaptations import few_shot_methods, list_adaptations, read_method
from clipadapt.config.building import build, target_at
from clipadapt.config.check import check
from clipadapt.config.composing import complete_methods, compose, methods, raise_all
from clipadapt.config.directory import (
    data_name,
    differing_settings,
    file_name,
    identity,
    reference,
    run_directory,
    same_images,
    with_local_home,
)
from clipadapt.config.grids import read_lists
from clipadapt.config.overrides import check_overrides, setting
from clipadapt.config.saved import saved_settings
from clipadapt.config.sources import build_source, sources
from clipadapt.config.tree import conf_dir, options, own_modules

__all__ = [
    "build",
    "build_source",
    "check",
    "check_overrides",
    "complete_methods",
    "compose",
    "conf_dir",
    "data_name",
    "differing_settings",
    "few_shot_methods",
    "file_name",
    "identity",
    "list_adaptations",
    "methods",
    "options",
    "own_modules",
    "raise_all",
    "read_lists",
    "read_method",
    "reference",
    "run_directory",
    "same_images",
    "saved_settings",
    "setting",
    "sources",
    "target_at",
    "with_local_home",
]
