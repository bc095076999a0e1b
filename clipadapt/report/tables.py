"""Tables for the terminal: the task and the plan before a run, the result after it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from clipadapt.report.statistics import BASE, NEW, harmonic

if TYPE_CHECKING:
    from clipadapt.data import Task

NONE = "-"
MAX_TENSORS = 8


def task_table(task: "Task", pseudo_labels: Mapping[str, Any] | None = None) -> Table:
    """Return the table of a task; `pseudo_labels` has their `choice`, and the share of them that is `right` or None."""
    how = (
        pseudo_labels_text(pseudo_labels, task.shots)
        if pseudo_labels
        else f"{shots_text(task.shots)}, seed {task.seed}"
    )
    sampled = f"{count_text(len(task.support), 'image')} ({how})"
    tests = [f"{name}: {count_text(len(split), 'image')}" for name, split in task.tests.items()]
    return _key_value_table(
        f"Task: {task.name}",
        {
            "classes": f"{len(task.class_names):,} ({_shortened(task.names_with_words)})",
            "templates": _shortened(task.templates, shown=3),
            "support set": f"{sampled}, {views_text(task.views, task.augmentation)}",
            "validation": count_text(len(task.validation), "image"),
            "test sets": "\n".join(tests) or NONE,
            **({"left out": left_out_text(task.left_out)} if task.left_out else {}),
        },
    )


def left_out_text(left_out: Mapping[str, Sequence[str]]) -> str:
    """Return how many broken images were left out of each split."""
    return "\n".join(f"{name}: {count_text(len(bad), 'broken image')}" for name, bad in left_out.items())


def pseudo_labels_text(pseudo_labels: Mapping[str, Any], shots: int) -> str:
    """Return which images a run learns from with pseudo-labels, and how many labels are right, if known."""
    confident = pseudo_labels["choice"] == "confident"
    which = f"zero-shot CLIP's {shots} most confident a class" if confident else "all, labelled by zero-shot CLIP"
    right = pseudo_labels["right"]
    return which if right is None else f"{which}; {percent_text(right)} of these labels are right"


def views_text(views: int | None, augmentation: str) -> str:
    """Return which views a run learns from; the arguments are a task's `views` and `augmentation`."""
    if augmentation == "none":
        return "centre crop"
    what = {"crop": "random crop", "mirror": "centre crop, mirrored or not,", "crop_mirror": "random view"}[
        augmentation
    ]
    if views is None:
        return f"a fresh {what} every epoch"
    return f"{count_text(views, f'stored {what}')} per image"


def plan_table(plan: Mapping[str, Any]) -> Table:
    """Return the table of a run's plan: cached features, computation per step, learned tensors.

    `plan` has the names `image_cut` and `text_cut` of two points, the sentences `kept` and `every_step`, the number of
    `steps` with a `schedule_note` on them or None, the shapes `trained` of the learned tensors by name, their number
    `parameters` and its `share` of the backbone's.
    """
    trained = [f"{name} [{', '.join(map(str, shape))}]" for name, shape in plan["trained"].items()]
    if len(trained) > MAX_TENSORS:
        trained = [*trained[: MAX_TENSORS - 1], f"and {len(trained) - MAX_TENSORS + 1} more"]
    return _key_value_table(
        "Plan",
        {
            "image tower": cut_text(plan["image_cut"]),
            "text tower": cut_text(plan["text_cut"]),
            "kept": plan["kept"],
            "every step": plan["every_step"],
            "steps": with_schedule_note(f"{plan['steps']:,}", plan["schedule_note"]),
            "trained": "\n".join(trained) or ("in closed form, in one step" if plan["parameters"] else "nothing"),
            "learned parameters": parameters_text(plan["parameters"], plan["share"]),
        },
    )


def with_schedule_note(text: str, schedule_note: str | None) -> str:
    """Return a text, with a schedule note in parentheses if there is one."""
    return text if schedule_note is None else f"{text} ({schedule_note})"


def cut_text(cut: str) -> str:
    """Return how much of a tower is frozen, given the point of its cut."""
    return "frozen throughout" if cut == "features" else f"frozen up to {cut}"


def result_table(result: Mapping[str, Any]) -> Table:
    """Return a table of zero-shot CLIP and the adapted one, and the costs of adapting.

    `result` has `tests`, accuracies by test set; if there are any, `accuracy` and `calibration_error`, each with its
    `zero_shot_` counterpart; `parameters`, `share`, `seconds`, `peak_memory_mb` and `processes`.
    """
    table = _against_zero_shot("", "Result")
    if result["tests"]:
        _compare_tests(table, result, _calibrated_text(result))
    _add_covered(table, result)
    table.add_row("learned parameters", "0", f"{result['parameters']:,}", "")
    table.add_row("share of the backbone", "", share_text(result["share"]), "")
    table.add_row("time", "", seconds_text(result["seconds"]), "")
    table.add_row("peak memory", "", f"{result['peak_memory_mb']:,.0f} MB", "")
    if result["processes"] > 1:
        table.add_row("processes", "", str(result["processes"]), "")
    return table


def evaluation_table(result: Mapping[str, Any]) -> Table:
    """Return a table of all figures of `result_table`, without costs, with the numbers of images in its title."""
    images = [f"{name}: {count_text(scores['images'], 'image')}" for name, scores in result["tests"].items()]
    table = _against_zero_shot("", f"Result on {', '.join(images)}")
    _compare_tests(table, result, _calibrated_text(result) if "calibrated" in result else None)
    _add_covered(table, result)
    return table


def cross_validation_table(found: Mapping[str, Any]) -> Table:
    """Return a table of the figures that `cross_validate` in `clipadapt.runs` finds, zero-shot and adapted."""
    table = _against_zero_shot("", f"Cross-validated over the support set: {count_text(found['folds'], 'fold')}")
    for name in found["figures"]:
        _compare_figure(table, found, name, found["scores"])
    return table


def per_class_table(result: Mapping[str, Any], limit: int = 20) -> Table:
    """Return a table of each class's accuracy, zero-shot and adapted; only the `limit` classes that changed most.

    `result` has accuracies by class name in `per_class` and `zero_shot_per_class`; a class without test images has NaN.
    In `classes` it has the adapted model's `precision`, `f1` and number of `images`, if it has them.
    """
    before, after = result["zero_shot_per_class"], result["per_class"]
    changes = {name: after[name] - before[name] for name in after if not math.isnan(after[name] - before[name])}
    names: Iterable[str] = changes
    title = "Accuracy per class"
    if len(changes) > limit:
        names = sorted(changes, key=lambda name: -abs(changes[name]))[:limit]
        title = f"Accuracy of the {limit} classes of {len(changes):,} that changed most"
    table, classes = _against_zero_shot("class", title), result.get("classes")
    for heading in ("precision", "F1", "images") if classes else ():
        table.add_column(heading, justify="right")
    for name in names:
        _compare(table, name, before[name], after[name], more=_class_cells(classes[name]) if classes else ())
    return table


def _class_cells(figures: Mapping[str, float]) -> tuple[str, ...]:
    return percent_text(figures["precision"]), percent_text(figures["f1"]), f"{figures['images']:,}"


def interval_text(mean: float, interval: float | None) -> str:
    """Return a mean fraction with half its interval, both in percent: `81.2 ± 1.3`."""
    return f"{100 * mean:.1f}" if interval is None else f"{100 * mean:.1f} ± {100 * interval:.1f}"


def percent_text(fraction: float) -> str:
    """Return a fraction in percent, or a dash for NaN."""
    return NONE if math.isnan(fraction) else f"{100 * fraction:.1f} %"


def score_name(row: Mapping[str, float]) -> str:
    """Return the name of the score in an epoch's record, which is neither its loss nor its learning rate."""
    return next(name for name in row if name not in ("epoch", "loss", "lr"))


def number_text(value: float) -> str:
    """Return a number with three significant digits, a dash when it is not a number."""
    return NONE if math.isnan(value) else f"{value:.3g}"


def figure_text(value: float, figure: Mapping[str, Any]) -> str:
    """Return a figure as text; `figure` says whether it is shown in `percent`."""
    return percent_text(value) if figure["percent"] else number_text(value)


def share_text(share: float) -> str:
    """Return a small fraction in percent with two significant digits."""
    return f"{100 * share:.1f} %" if share >= 0.1 or share == 0 else f"{100 * share:.2g} %"


def parameters_text(parameters: int, share: float) -> str:
    """Return a number of parameters and its share of the backbone's."""
    return f"{parameters:,} ({share_text(share)} of the backbone)"


def count_text(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def shots_text(shots: int | str) -> str:
    """Return a number of shots with its noun; "all" is every image."""
    return "all images" if isinstance(shots, str) else count_text(shots, "shot")


def seconds_text(seconds: float) -> str:
    """Return a duration in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _against_zero_shot(first: str, title: str) -> Table:
    table = Table(first, title=title, title_justify="left", title_style="bold")
    for head in ("zero-shot", "adapted", "change"):
        table.add_column(head, justify="right")
    return table


def _add_covered(table: Table, result: Mapping[str, Any]) -> None:
    if "covered" in result:
        table.add_row("class within its 90 % set", "", percent_text(result["covered"]), "", end_section=True)


def _compare_tests(table: Table, result: Mapping[str, Any], calibrated: str | None) -> None:
    """Add all figures; `calibrated` is the calibration error after temperature scaling, None for no row of it."""
    leads, *others = result["figures"]
    _compare_figure(table, result, leads, result, last=not others)
    _add_interval(table, result, leads)
    if len(result["tests"]) > 1:
        for name, scores in result["tests"].items():
            _compare_figure(table, result, leads, scores, label=f"  on {name}")
        _compare_harmonic(table, result["tests"])
    for name in others:
        last, scaled = name == others[-1], name == "calibration_error" and calibrated is not None
        _compare_figure(table, result, name, result, last=last and not scaled)
        if scaled:
            table.add_row("  after temperature scaling", "", calibrated, "", end_section=last)


def _compare_figure(
    table: Table,
    result: Mapping[str, Any],
    name: str,
    scores: Mapping[str, float],
    label: str | None = None,
    last: bool = False,
) -> None:
    figure = result["figures"][name]
    before, after = scores[f"zero_shot_{name}"], scores[name]
    better = 1 if figure["higher_is_better"] else -1
    _compare(table, label or figure["title"], before, after, better, last, figure["percent"])


def _calibrated_text(result: Mapping[str, Any]) -> str:
    """Return the calibration error after temperature scaling with the temperature, or why there is none."""
    if "calibrated" not in result:
        return NONE if "known_scores" in result else "no validation"
    temperature = number_text(result["known_scores"]["temperature"])
    return f"{percent_text(result['calibrated']['calibration_error'])} (T = {temperature})"


def _add_interval(table: Table, result: Mapping[str, Any], name: str) -> None:
    """Add the 95 % intervals of a figure over the test images, where the result has them."""
    pairs = [result.get(key, {}).get(name) for key in ("zero_shot_intervals", "intervals")]
    if None not in pairs:
        table.add_row("  95 % interval", *(f"{100 * low:.1f} to {100 * high:.1f} %" for low, high in pairs), "")


def _compare_harmonic(table: Table, tests: Mapping[str, Mapping[str, float]]) -> None:
    if {BASE, NEW} <= {*tests} and "accuracy" in tests[BASE]:
        both = harmonic(tests[BASE], tests[NEW])
        _compare(table, "harmonic mean of base and new", both["zero_shot_accuracy"], both["accuracy"])


def _compare(
    table: Table,
    label: str,
    before: float,
    after: float,
    better: int = 1,
    end_section: bool = False,
    percent: bool = True,
    more: Sequence[str] = (),
) -> None:
    text = percent_text if percent else number_text
    change = (100 if percent else 1) * (after - before)
    least = 0.05 if percent else 0.0005
    style = "" if math.isnan(change) or abs(change) < least else "green" if better * change > 0 else "red"
    shown = NONE if math.isnan(change) else f"{change:+.1f}" if percent else f"{change:+.2g}"
    table.add_row(Text(label), text(before), text(after), Text(shown, style), *more, end_section=end_section)


def _key_value_table(title: str, values: Mapping[str, str]) -> Table:
    table = Table(title=Text(title, "bold"), title_justify="left", show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for label, fact in values.items():
        table.add_row(label, Text(fact))
    return table


def _shortened(names: Sequence[str], shown: int = 6) -> str:
    rest = f", and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest
