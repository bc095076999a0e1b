"""Many runs: grids, protocols, and the aggregates over seeds."""

from clipadapt.studies.grid import RunSpec, grid
from clipadapt.studies.protocols import Study, comparison, study

__all__ = ["RunSpec", "Study", "comparison", "grid", "study"]
