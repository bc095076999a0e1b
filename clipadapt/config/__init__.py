"""Settings from YAML and the command line: composed by Hydra, checked all at once, plain Python values from here on.

Only the modules of this package and `clipadapt.cli` know Hydra and OmegaConf.
"""

from clipadapt.config.adaptations import adaptations_of
from clipadapt.config.building import build
from clipadapt.config.check import check
from clipadapt.config.composing import compose, methods, raise_all
from clipadapt.config.directory import at_home, data_name, file_name, identity, reference, run_directory, same_images
from clipadapt.config.overrides import setting
from clipadapt.config.saved import saved_settings
from clipadapt.config.sources import source_of, sources
from clipadapt.config.tree import conf_dir, options, own_modules

__all__ = [
    "Cell",
    "Target",
    "adaptations_of",
    "at_home",
    "build",
    "check",
    "compose",
    "conf_dir",
    "data_name",
    "file_name",
    "identity",
    "methods",
    "options",
    "own_modules",
    "raise_all",
    "reference",
    "run_directory",
    "same_images",
    "saved_settings",
    "setting",
    "source_of",
    "sources",
]
