"""Manifests of runs whose files a test has changed, as a stranger could write them."""

from pathlib import Path

from clipadapt.runs.manifest import MANIFEST, write_manifest


def renew_manifest(run: Path) -> None:
    """Write a manifest of a run's files as they are now."""
    files = [path.relative_to(run).as_posix() for path in sorted(run.rglob("*")) if path.is_file()]
    write_manifest(run, [name for name in files if name != MANIFEST], {})
