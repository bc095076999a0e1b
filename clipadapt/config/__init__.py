"""Settings from YAML and the command line: composed by Hydra, checked all at once, plain Python values from here on.

Only the modules of this package and `clipadapt.cli` know Hydra and OmegaConf.
"""

from clipadapt.config.building import build
from clipadapt.config.check import check
from clipadapt.config.composing import compose, methods, raise_all
from clipadapt.config.directory import at_home, data_name, file_name, identity, reference, run_directory, same_images
from clipadapt.config.grid import Cell, axes_of, grid
from clipadapt.config.launching import launch, protocol
from clipadapt.config.sources import source_of, sources
from clipadapt.config.study import Study, Target, comparison, study
from clipadapt.config.tree import conf_dir, options, own_modules
from clipadapt.config.words import setting

__all__ = [
    "Cell",
    "Study",
    "Target",
    "at_home",
    "axes_of",
    "build",
    "check",
    "comparison",
    "compose",
    "conf_dir",
    "data_name",
    "file_name",
    "grid",
    "identity",
    "launch",
    "methods",
    "options",
    "own_modules",
    "protocol",
    "raise_all",
    "reference",
    "run_directory",
    "same_images",
    "setting",
    "source_of",
    "sources",
    "study",
]
