import csv
import io

import pytest
from rich.console import Console

from clipadapt.report import comparison
from clipadapt.report.points import collect_points
from clipadapt.report.statistics import aggregate_scores


def row(method="coop", data="digits", shots=4, tests=None, failed=None, **other):
    tests = [{"test": (0.8, 0.7)}, {"test": (0.9, 0.7)}] if tests is None else tests
    figures = [{name: {"accuracy": a, "zero_shot_accuracy": z} for name, (a, z) in one.items()} for one in tests]
    plain = {
        "backbone": "tiny",
        "data": data,
        "method": method,
        "title": method.capitalize(),
        "shots": shots,
        "seeds": list(range(1, len(tests) + 1)),
        "zero_shot": False,
        "scores": aggregate_scores(figures),
        "targets": [],
        "parameters": 2048,
        "seconds": 3.25,
        "peak_memory_mb": 1234.0,
        "schedule_note": None,
        "test_note": None,
        "failed": failed or {},
        "runs": [],
    }
    return plain | other


def shown(rows):
    console = Console(width=200, file=io.StringIO())
    comparison.show(console, rows)
    return console.file.getvalue()


def line(text, start):
    return next(line for line in text.splitlines() if start in line)


def test_methods_stand_against_zero_shot():
    text = shown([row(), row(shots=16), row("tip", parameters=0, tests=[{"test": (0.5, 0.7)}]), row("tip", shots=16)])
    assert "Test accuracy (%) of tiny on digits, mean and 95 % interval over seeds 1, 2" in " ".join(text.split())
    for part in ("85.0 ± 63.5", "2,048", "3.2", "1,234"):
        assert part in line(text, "Coop")
    assert "70.0" in line(text, "zero-shot *") and "* zero-shot: nothing is learned" in text
    assert "50.0 " in line(text, "Tip") and "0 to 2,048" in line(text, "Tip")


def test_a_method_that_learns_nothing_is_the_zero_shot_row():
    text = shown([row(), row("frozen", zero_shot=True, parameters=0)])
    assert text.count("*") == 2 and text.index("Frozen *") < text.index("Coop")


def test_what_failed_is_told_once_below():
    told = {"needs a validation split": [1, 2]}
    rows = [row(), row("tip", tests=[], failed=told), row("tip", shots=16, tests=[], failed=told), row(shots=16)]
    text = shown(rows)
    assert line(text, "Tip").count("failed [1]") == 2
    assert "seed 1" in shown([row(tests=[{"test": (0.5, 0.4)}])])
    assert "[1] Tip on digits (4 shots, seed 1, 2; 16 shots, seed 1, 2): needs a validation split" in text
    partly = shown([row(failed={"the loss became nan": [3]})])
    assert "85.0 ± 63.5 [1]" in partly and "seeds 1, 2, 3" in partly


def test_everything_may_fail():
    rows = [row(tests=[], failed={"no images": [1]})]
    assert "failed [1]" in shown(rows) and "seed 1" in shown(rows)
    assert collect_points(rows) == ([], {})
    assert "curves.png" not in comparison.markdown(rows)


def test_base_and_new_classes_have_columns_and_a_mean():
    split = [{"test": (0.5, 0.4), "base": (0.9, 0.8), "new": (0.6, 0.4), "sketch": (0.3, 0.2)}]
    rows = [row(tests=split), row(data="drawn")]
    assert rows[0]["scores"]["H"]["accuracy"] == pytest.approx(2 * 0.9 * 0.6 / 1.5)
    text = shown(rows)
    for head in ("base", "new", "H", "accuracy"):
        assert f" {head} " in text
    assert "4 shots" in text
    assert "90.0" in line(text, "│ digits │ Coop") and "72.0" in line(text, "│ digits │ Coop")
    assert text.count("Every test set: accuracy (%) of tiny on digits") == 1 and "30.0" in text


def test_further_test_sets_have_a_table_of_their_own():
    text = shown([row(tests=[{"test": (0.5, 0.4), "sketch": (0.3, 0.2)}])])
    assert text.index("sketch") < text.index("zero-shot *")
    assert "30.0" in text


def test_the_average_over_data_takes_base_and_new_first():
    tests = [{"base": (0.9, 0.8), "new": (0.6, 0.4)}], [{"base": (0.5, 0.4), "new": (0.2, 0.2)}]
    rows = [row(tests=tests[0]), row(data="drawn", tests=tests[1]), row("other", data="drawn", tests=tests[1])]
    text = shown(rows)
    found = line(text, "│ average │ Coop")
    assert [f"{100 * value:.1f}" in found for value in (0.7, 0.4, 2 * 0.7 * 0.4 / 1.1)] == [True] * 3
    assert "│ average │ Other" not in text
    assert "60.0" in line(text, "│ average │ zero-shot *")


def test_the_average_has_the_interval_of_the_seeds_averages():
    rows = [row(), row(data="drawn", tests=[{"test": (0.6, 0.5)}, {"test": (0.5, 0.5)}])]
    assert "70.0 ± 0.0" in line(shown(rows), "│ average │ Coop")


def test_the_average_row_says_what_runs_took_on_all_data():
    took = [
        {"parameters": parameters, "seconds": seconds, "peak_memory_mb": memory}
        for parameters, seconds, memory in ((5_120, 9.0, 300.0), (1_024, 3.0, 900.0))
    ]
    rows = [row(**took[0]), row(data="drawn", **took[1]), row("tip"), row("tip", data="drawn")]
    rows += [row(shots=16, parameters=7)]  # which has no average
    text = shown(rows)
    found = line(text, "│ average │ Coop")
    assert [part in found for part in ("1,024 to 5,120 ", " 6.0 ", " 900 ")] == [True] * 3
    assert " 2,048 " in line(text, "│ average │ Tip")


def test_further_test_sets_are_averaged_and_corruptions_over_severities():
    tests = [{"test": (0.9, 0.4), "noise/1": (0.8, 0.2), "noise/5": (0.4, 0.2), "sketch": (0.3, 0.2)}]
    text = shown([row(tests=tests)])
    found = line(text, "│ Coop")
    assert "noise/" not in text
    assert [value in found for value in ("90.0", "60.0", "30.0", "45.0")] == [True] * 4
    assert "average: of noise, sketch" in text


def test_the_average_of_a_study_with_targets_is_over_them_alone():
    tests = [
        {"test": (0.9, 0.4), "sketch": (0.1, 0.1), "glyphs": (0.8, 0.3), "noise/1": (0.7, 0.6), "noise/5": (0.5, 0.4)}
    ]
    text = shown([row(tests=tests, targets=["glyphs", "noise/1", "noise/5"])])
    assert "average: of glyphs, noise" in text
    assert line(text, "│ Coop").split("│")[-2].strip() == "70.0"
    assert line(text.partition("Every test set")[2], "│ zero-shot *").split("│")[-2].strip() == "40.0"


def test_a_method_that_lacks_some_targets_has_no_average():
    tests = [{"test": (0.9, 0.4), "glyphs": (0.8, 0.3), "pairs": (0.4, 0.1)}]
    rows = [row("tip", tests=[{"test": (0.9, 0.4)}]), row(tests=tests, targets=["glyphs", "pairs"])]
    cells = {name: line(shown(rows), f"│ {name}").split("│")[3:-1] for name in ("Coop", "Tip", "zero-shot *")}
    found = {name: [cell.strip() for cell in some] for name, some in cells.items()}
    assert found["Tip"] == ["90.0", "-", "-", "-"] and found["Coop"] == ["90.0", "80.0", "40.0", "60.0"]
    assert found["zero-shot *"] == ["40.0", "30.0", "10.0", "20.0"]


def test_a_seed_that_lacks_a_test_set_leaves_it_out_of_the_scores():
    figures = {"accuracy": 0.5, "zero_shot_accuracy": 0.4}
    assert [*aggregate_scores([{"test": figures, "glyphs": figures}, {"test": figures}])] == ["test"]


def test_latex():
    text = comparison.latex([row(title="A & B_1"), row(data="drawn")])
    assert text.count(r"\begin{tabular}{llrrrr}") == 1 and text.count(r"\midrule") == 3
    assert r"digits & A \& B\_1 & 85.0 $\pm$ 63.5 & 2,048 & 3.2 & 1,234 \\" in text


def test_a_remark_stands_everywhere():
    rows = [row(tests=[{"test": (0.5, 0.4), "sketch": (0.3, 0.2)}], schedule_note="quick schedule: at most 150 steps")]
    assert " ".join(shown(rows).split()).count("quick schedule") == 2
    assert comparison.markdown(rows).count("quick schedule") == 2
    assert "quick schedule" in comparison.csv_text(rows)


def test_a_method_that_saw_its_test_images_together_says_so():
    text = shown([row(), row("zlap", test_note="the images of each test set were seen together")])
    assert "Zlap (test images together)" in text and "Coop (test" not in text


def test_methods_of_one_title_are_told_apart():
    text = shown([row(), row("other", title="Coop")])
    assert "Coop (coop)" in text and "Coop (other)" in text


def test_markdown_and_csv():
    rows = [row(), row("a|b", tests=[], failed={"no, really": [1]})]
    text = comparison.markdown(rows)
    assert "| Coop | 85.0 ± 63.5 | 2,048 | 3.2 | 1,234 |" in text
    assert r"A\|b" in text and r"zero-shot \*" in text and text.endswith("(curves.png)\n")
    first, second = csv.DictReader(io.StringIO(comparison.csv_text(rows)))
    assert float(first["accuracy on test"]) == pytest.approx(0.85)
    assert first["seeds"] == "1 2" and first["zero_shot_accuracy on test"] == "0.7"
    assert second["accuracy on test"] == "" and second["failed"] == "no, really"


def test_every_accuracy_in_the_csv_says_what_it_is_on():
    text = comparison.csv_text([row(tests=[{"base": (0.9, 0.8), "new": (0.6, 0.4)}])])
    (found,) = csv.DictReader(io.StringIO(text))
    accuracies = {key: float(value) for key, value in found.items() if key.startswith("accuracy")}
    assert accuracies == {
        "accuracy on base": 0.9,
        "accuracy on new": 0.6,
        "accuracy on H (harmonic mean of base and new)": pytest.approx(0.72),
    }


def test_curves_leave_the_zero_shot_row_out():
    found, zero_shot = collect_points([row(), row("frozen", zero_shot=True)])
    assert [point["method"] for point in found] == ["Coop"]
    assert zero_shot == {"digits": {4: pytest.approx(0.7)}}


def test_curves_show_the_average_over_targets_beside_the_data_that_were_learned():
    tests = [{"test": (0.9, 0.4), "sketch": (0.1, 0.1), "glyphs": (0.8, 0.3), "pairs": (0.4, 0.1)}]
    rows = [row(tests=tests, targets=["glyphs", "pairs"]), row("tip", tests=[{"test": (0.7, 0.4)}])]
    found, zero_shot = collect_points(rows)
    other = "digits: average over glyphs, pairs"
    assert [(point["data"], point["method"], point["mean"]) for point in found] == [
        ("digits", "Coop", pytest.approx(0.9)),
        (other, "Coop", pytest.approx(0.6)),
        ("digits", "Tip", pytest.approx(0.7)),
    ]
    assert zero_shot == {"digits": {4: pytest.approx(0.4)}, other: {4: pytest.approx(0.2)}}
    assert comparison.ITS_OWN in shown(rows) and comparison.ITS_OWN not in shown([row()])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a"], "digits: a"),
        (["a", "b", "c"], "digits: average over a, b, c"),
        (["a", "b", "c", "d"], "digits: average over 4 further test sets"),
    ],
)
def test_a_panel_of_further_test_sets_says_which(names, said):
    figures = {name: (0.5, 0.4) for name in ["test", *names]}
    found, _ = collect_points([row(tests=[figures])])
    assert [point["data"] for point in found] == ["digits", said]


def narrow(rows, width):
    console = Console(width=width, file=io.StringIO())
    comparison.show(console, rows)
    return console.file.getvalue()


def test_a_narrow_window_has_no_room_for_what_a_run_takes():
    rows = [row(shots=shots) for shots in (1, 2, 4)]
    assert "2,048" in narrow(rows, 100) and "for lack of room" not in narrow(rows, 100)
    text = narrow(rows, 70)
    assert "2,048" not in text and "parameters, seconds, peak MB: only in the files, for lack of room" in text
    assert text.count("85.0 ± 63.5") == 3 and "…" not in text


def test_many_test_sets_are_lines_in_a_narrow_window():
    tests = [{f"set number {number}": (0.5 + number / 100, 0.4) for number in range(12)}]
    text = narrow([row(tests=tests), row("other", tests=tests)], 80)
    assert "…" not in text and "61.0" in line(text, "│ set number 11") and "40.0" in line(text, "│ set number 11")
