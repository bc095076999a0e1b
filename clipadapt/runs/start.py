"""Start of a fit from what a finished run learned."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipadapt.checksums import hash_file
from clipadapt.engine.run import Run
from clipadapt.errors import UserError, join_names
from clipadapt.paths import checked_path
from clipadapt.runs.learned import misfit
from clipadapt.runs.reading import TENSORS
from clipadapt.runs.result import read_result
from clipadapt.runs.tasks import named_as_recorded

SHOWN_CLASSES = 6


def learned_hash(run: str) -> str | None:
    """Return the SHA-256 of what a finished run learned; None if it isn't there."""
    try:
        return hash_file(Path(run, TENSORS))
    except OSError:
        return None


def start_change_note(config: Mapping[str, Any], record: Mapping[str, Any]) -> str | None:
    """Return a note if the run that a finished one started from has learned something else since, else None."""
    start = config["from"]
    if start is None or learned_hash(start) == record.get("start"):
        return None
    return f"{start}, from which this run started, has changed since: rerun=true computes it again"


def start_from(run: str, prepared: Run, config: Mapping[str, Any]) -> None:
    """Load what a finished run learned into the adaptation of a prepared one, which the fit then begins with.

    Args:
        run: directory of the finished run.
        prepared: the run to fit.
        config: its settings.

    Raises:
        UserError: no finished run is there, or it was learned on another backbone, by another method, or on other
            classes than those that its numbers belong to; or the fit doesn't follow gradients, and so has no start.
    """
    method, adaptation = config["method"]["name"], prepared.head.adaptation
    if not prepared.epochs:
        raise UserError(f"from={run}: {method} isn't fitted by gradient, so that nothing can start it: leave out from=")
    result = read_result(checked_path(run, "from"))
    record = result.record
    if record["backbone"]["fingerprint"] != prepared.clip.fingerprint:
        raise UserError(f"from={run} was learned on the backbone {record['backbone']['name']} with other weights")
    before, now = record["class_names"], named_as_recorded(prepared.task, record).class_names
    if adaptation.capabilities.fixed_classes is not None and before != now:
        other = [name for name in [*before, *now] if (name in before) != (name in now)] or now
        raise UserError(
            f"from={run}: what {method} learns belongs to its classes, and they differ "
            f"({join_names(other, SHOWN_CLASSES)}): take a method that can name new classes, such as clip_adapter or "
            "coop, or leave out from="
        )
    if (learned := result.config["method"]["name"]) != method:
        raise UserError(f"from={run} was learned by {learned}, and this is {method}: add method={learned}")
    if problem := misfit(result.tensors, adaptation.state_dict()):
        raise UserError(f"from={run} holds something else than {method} learns here ({problem}): give its settings")
    adaptation.load_state_dict(result.tensors)
