"""Many runs: grids, protocols, and the aggregates over seeds."""

from clipadapt.studies.grid import RunSpec, axes_of, grid
from clipadapt.studies.protocols import EvaluationTarget, Study, comparison, study

__all__ = ["EvaluationTarget", "RunSpec", "Study", "axes_of", "comparison", "grid", "study"]
