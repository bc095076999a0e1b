"""The few-shot protocol: one method at 1 to 16 shots over seeds, as a table and as curves."""

import json
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from rich.console import Console

from clipadapt.config import recipe, run_directory
from clipadapt.errors import UserError

Counts = list[Annotated[int, Ge(1)]]
Seeds = list[Annotated[int, Ge(0)]]


@recipe("few_shot")
def main(config: dict[str, Any], shots: Counts, seeds: Seeds) -> None:
    """Run a method at several numbers of shots over several seeds, and show how it learns.

    python recipes/few_shot.py                                  CoOp on handwritten digits, 1 to 16 shots, 3 seeds
    python recipes/few_shot.py method=clip_adapter 'recipe.shots=[1,4,16]'
    python recipes/few_shot.py data=folder data.root=my_images backbone=ViT-B-16

    Every run is kept in its own directory, so that a stopped study goes on where it was and a larger one computes only
    what is missing. The table and the curves are written beside the runs, as few_shot.json and few_shot.png.
    """
    from clipadapt import api
    from clipadapt.report import tables
    from clipadapt.report.curves import few_shot_curves
    from clipadapt.report.statistics import mean_interval

    console = Console()
    results: dict[int, list[dict[str, Any]]] = {count: [] for count in shots}
    for count in shots:
        for seed in seeds:
            settings = {**config, "shots": count, "seed": seed}
            metrics = api.run(settings, run_directory(settings), Console(quiet=True)).metrics
            if not metrics["tests"]:
                raise UserError("the few-shot protocol compares accuracies, and these data have no test set")
            console.print(f"{count} shots, seed {seed}: {100 * metrics['accuracy']:.1f} %")
            results[count].append(metrics)
    method = config["method"]["title"] or config["method"]["name"]
    place = study_path(config)
    data = place.parents[2].name
    rows: list[tables.FewShotRow] = []
    for count, runs in results.items():
        mean, interval = mean_interval([run["accuracy"] for run in runs])
        rows.append({"data": data, "method": method, "shots": count, "mean": mean, "interval": interval})
    zero_shot, _ = mean_interval([run["zero_shot_accuracy"] for runs in results.values() for run in runs])
    remark = results[shots[0]][0].get("remark")
    console.print(tables.few_shot_table(rows, zero_shot, remark))
    table = {"seeds": seeds, "zero_shot_accuracy": zero_shot, "remark": remark, "rows": rows}
    place.with_suffix(".json").write_text(json.dumps(table, indent=2) + "\n")
    unlearned = {data: dict.fromkeys(shots, zero_shot)}
    console.print(f"Curves: {few_shot_curves(rows, unlearned, place.with_suffix('.png'), remark)}")


def study_path(config: dict[str, Any]) -> Path:
    """Beside the runs, with what their names say beyond shots and seed."""
    directory = run_directory(config)
    beyond = directory.name.removeprefix(f"shots{config['shots']}-seed{config['seed']}")
    return directory.with_name(f"few_shot{beyond}")


if __name__ == "__main__":
    main()
