import pytest

from clipadapt.report.curves import apart, few_shot_curves
from tests.report.test_pictures import ink


def rows(data, shots, methods, interval=0.02):
    return [
        {
            "data": data,
            "method": f"Method {number}",
            "shots": count,
            "mean": 0.4 + 0.01 * number,
            "interval": interval,
            "values": [0.4] * 3,
        }
        for count in shots
        for number in range(methods)
    ]


@pytest.mark.parametrize("shots", [(1, 2, 4), (16,)])
@pytest.mark.parametrize("panels, methods, interval", [(1, 1, None), (2, 30, 0.3), (4, 3, 0.02)])
def test_few_and_many_methods_and_data_sets(shots, panels, methods, interval, tmp_path):
    names = [f"set {number}" for number in range(panels)]
    points = [row for name in names for row in rows(name, shots, methods, interval)]
    zero_shot = {name: dict.fromkeys(shots, 0.42) for name in names}
    assert ink(few_shot_curves(points, zero_shot, tmp_path / "curves.png", "quick schedule")) > 0.005


def test_a_method_may_lack_points(tmp_path):
    points = rows("digits", (1, 4), 2)[:3]
    assert ink(few_shot_curves(points, {"digits": {1: 0.4, 4: 0.4}}, tmp_path / "curves.png")) > 0.005


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
    assert apart(values, 1, 0, 10) == pytest.approx(places)
