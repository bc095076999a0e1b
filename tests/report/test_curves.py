import numpy as np
import pytest

from clipadapt.report.curves import curves, few_shot_curves, figure_title, panel_title, ranked_points, spread_apart
from clipadapt.report.pictures import figures
from clipadapt.report.statistics import mean_interval
from tests.report.test_pictures import pixel_at, saved


def point(data, method, shots, values):
    mean, interval = mean_interval(values)
    return {"data": data, "method": method, "shots": shots, "mean": mean, "interval": interval, "values": values}


def rows(data, shots, methods, spread=(-0.01, 0.0, 0.01)):
    return [
        point(data, f"Method {number}", count, [0.4 + 0.01 * number + some for some in spread])
        for count in shots
        for number in range(methods)
    ]


def band_of(panel, index):
    """Corners of a method's band, without those where it has none."""
    corners = [path.vertices for path in panel.collections[index].get_paths()]
    return np.concatenate(corners) if corners else np.zeros((0, 2))


def check_curves(panel, points, methods, zero_shot):
    """Every method has its means, its interval or pair of seeds, and its name with its last value; so has zero-shot."""
    means = [line for line in panel.lines if line.get_marker() not in (".", "None")]
    assert len(means) == len(panel.collections) == len(methods)
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in means}) == len(methods)
    pairs = [line.get_xydata() for line in panel.lines if line.get_marker() == "."]
    names = [text.get_text() for text in panel.texts]
    for index, (method, line) in enumerate(zip(methods, means, strict=True)):
        own = [row for row in points if row["method"] == method]
        np.testing.assert_allclose(line.get_xydata(), [(row["shots"], 100 * row["mean"]) for row in own])
        assert line.get_visible() and line.get_linestyle() != "None"
        assert f"{100 * own[-1]['mean']:.1f}  {method}" in names
        for row in own:
            ends = {(row["shots"], 100 * row["mean"] + side * 100 * (row["interval"] or 0)) for side in (-1, 1)}
            seeds = [(row["shots"], 100 * value) for value in row["values"]]
            corners = band_of(panel, index)
            held = {end: bool(len(corners)) and np.isclose(corners, end).all(axis=1).any() for end in ends}
            assert all(found == (len(row["values"]) > 2) for found in held.values())
            assert any(np.allclose(pair, seeds) for pair in pairs if len(seeds) == 2) == (len(seeds) == 2)
    [line] = [line for line in panel.lines if line.get_marker() == "None"]
    np.testing.assert_allclose(line.get_xydata(), [(shots, 100 * value) for shots, value in zero_shot.items()])
    assert line.get_visible() and "42.0  zero-shot" in names


def check_order(panel, points, zero_shot):
    """Every method has its mean, its interval or pair of seeds, and its name, the most accurate one on top."""
    ordered = sorted(points, key=lambda row: row["mean"])
    [(means, _, [bars])] = panel.containers
    np.testing.assert_allclose(means.get_xydata(), [(100 * row["mean"], place) for place, row in enumerate(ordered)])
    assert means.get_visible() and means.get_marker() == "o"
    for place, (row, ends) in enumerate(zip(ordered, bars.get_segments(), strict=True)):
        if len(row["values"]) > 2:
            expected = [(100 * (row["mean"] + side * row["interval"]), place) for side in (-1, 1)]
            np.testing.assert_allclose(ends, expected)
        else:
            assert len(ends) == 0 or np.isnan(ends).any()
    pairs = [line.get_xydata() for line in panel.lines if line.get_marker() == "."]
    expected = [[(100 * value, place) for value in row["values"]] for place, row in enumerate(ordered)]
    np.testing.assert_allclose(pairs, [pair for pair in expected if len(pair) == 2])
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert labels == [f"{row['method']}  {100 * row['mean']:.1f}" for row in ordered]
    [line] = [line for line in panel.lines if line.get_linestyle() == "--"]
    assert line.get_xdata() == pytest.approx([42, 42]) and line.get_visible()
    assert [text.get_text() for text in panel.texts] == ["zero-shot  42.0"]


@pytest.mark.parametrize("shots", [(1, 2, 4), (16,)])
@pytest.mark.parametrize("panels, methods, spread", [(1, 1, [0.0]), (2, 30, [-0.1, 0.0, 0.1]), (4, 3, [-0.01, 0.01])])
def test_few_and_many_methods_and_data_sets(shots, panels, methods, spread, tmp_path, drawn_figures):
    names = [f"set {number}" for number in range(panels)]
    points = [row for name in names for row in rows(name, shots, methods, spread)]
    zero_shot = {name: dict.fromkeys(shots, 0.42) for name in names}
    path = few_shot_curves(points, zero_shot, tmp_path / "curves.png", "quick schedule")
    [figure] = drawn_figures
    assert figure.get_suptitle() == f"{figure_title(points)}\nquick schedule"
    assert [panel.get_title() for panel in figure.axes] == names
    image = saved(path)
    for panel, name in zip(figure.axes, names, strict=True):
        own = [row for row in points if row["data"] == name]
        if len(shots) > 1:
            check_curves(panel, own, [f"Method {number}" for number in range(methods)], zero_shot[name])
        else:
            check_order(panel, own, zero_shot[name])
        mean = 100 * max(row["mean"] for row in own if row["shots"] == shots[-1])
        place = (shots[-1], mean) if len(shots) > 1 else (mean, methods - 1)
        assert min(pixel_at(image, panel, *place)) < 200


def drawn(shots, *spreads):
    """A panel with a method for each spread; heights of its bands and bars, and how many lines join single seeds."""
    _, [panel] = figures(1, 6, 4)
    methods = [f"Method {number}" for number in range(len(spreads))]
    points = [
        point("digits", name, count, [0.5 + number / 10 + some for some in spread])
        for count in shots
        for number, (name, spread) in enumerate(zip(methods, spreads, strict=True))
    ]
    draw = curves if len(shots) > 1 else ranked_points
    draw(panel, points, dict.fromkeys(shots, 0.42), methods)
    extents = [path.get_extents() for band in panel.collections for path in band.get_paths() if len(path.vertices)]
    heights = [max(extent.height, extent.width * (draw is ranked_points)) for extent in extents]
    return [height for height in heights if height > 0], sum(line.get_marker() == "." for line in panel.lines)


@pytest.mark.parametrize("shots", [(1, 4), (16,)])
def test_two_seeds_are_shown_themselves_and_three_by_an_interval(shots):
    single_seeds, three = [-0.01, 0.01], [-0.01, 0.0, 0.01]
    assert drawn(shots, single_seeds) == ([], len(shots))
    assert drawn(shots, [0.0]) == ([], 0)
    (height, *others), joined = drawn(shots, single_seeds, three)
    assert joined == len(shots) and not others and height > 2


def test_the_axis_of_methods_in_order_spans_their_intervals():
    _, [panel] = figures(1, 6, 4)
    wide = point("digits", "CoOp", 16, [0.75, 0.8, 0.85])
    ranked_points(panel, [wide, point("digits", "Tip", 16, [0.81, 0.81, 0.81])], {16: 0.8}, ["CoOp", "Tip"])
    low, high = panel.get_xlim()
    assert low < 100 * (wide["mean"] - wide["interval"]) and high > 100 * (wide["mean"] + wide["interval"])


@pytest.mark.parametrize(
    "counts, said",
    [
        ([1], ""),
        ([2], ", mean and each of two seeds"),
        ([3, 4], ", mean and 95 % interval over seeds"),
        ([1, 2, 3], ", mean and 95 % interval over seeds, or each of two"),
    ],
)
def test_the_title_says_what_stands_around_a_mean(counts, said):
    points = [point("digits", "CoOp", shots, [0.4 + seed / 100 for seed in range(shots)]) for shots in counts]
    assert figure_title(points) == f"Test accuracy{said}"


def test_a_title_of_a_panel_has_two_lines_at_most():
    assert panel_title("drawn: average over glyphs, pairs, digits") == "drawn: average over glyphs, pairs, digits"
    assert panel_title("cost$ " + "long " * 40).count("\n") == 1 and r"\$" in panel_title("cost$")


def test_a_method_may_lack_points(tmp_path, drawn_figures):
    points = rows("digits", (1, 4), 2)[:3]
    few_shot_curves(points, {"digits": {1: 0.42, 4: 0.42}}, tmp_path / "curves.png")
    [panel] = drawn_figures[0].axes
    check_curves(panel, points, ["Method 0", "Method 1"], {1: 0.42, 4: 0.42})


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ([1, 5, 9], [1, 5, 9]),
        ([5, 5], [4.5, 5.5]),
        ([1, 5, 5.5, 9], [1, 4.75, 5.75, 9]),
        ([10, 10, 10], [8, 9, 10]),
        ([0, 0], [0, 1]),
        ([3, 3, 3, 3.5, 4.5], [1.4, 2.4, 3.4, 4.4, 5.4]),
    ],
)
def test_names_are_moved_apart_as_little_as_need_be(values, places):
    assert spread_apart(values, 1, 0, 10) == pytest.approx(places)
