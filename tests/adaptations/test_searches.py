"""Searches on the validation split: the same as trying each combination by itself."""

import pytest
import torch

from clipadapt.adaptations.searches import accuracy, first_best, grid, grid_accuracies

LABELS = torch.arange(12) % 3
GRIDS = [0.5, 2.0], [0.0, 1.0, 3.0], [0.1, 0.7, 5.0, 20.0]


def terms(a, b):
    draw = torch.Generator().manual_seed(0)
    x, y, z = torch.randn(3, 12, 3, generator=draw)
    return a * x + b * y, z


def test_the_grid_leaves_its_end_out():
    assert grid(0.1, 7.0, 3) == pytest.approx([0.1, 2.4, 4.7])


@pytest.mark.parametrize("most", [1, 100, 2**24])
def test_all_at_once_or_one_by_one(most):
    found = grid_accuracies(terms, LABELS, *GRIDS, most=most)
    assert found.shape == (2, 3, 4)
    for i, a in enumerate(GRIDS[0]):
        for j, b in enumerate(GRIDS[1]):
            first, second = terms(a, b)
            for k, c in enumerate(GRIDS[2]):
                assert found[i, j, k] == ((first + c * second).argmax(dim=-1) == LABELS).float().mean()


def test_of_equals_the_first_with_the_last_grid_fastest():
    table = torch.zeros(2, 3, 4)
    table[1, 0, 0] = table[0, 2, 3] = table[0, 2, 1] = 0.5
    assert first_best(table, *GRIDS) == [0.5, 3.0, 0.7]


def test_with_nothing_right_it_is_what_the_method_says():
    assert first_best(torch.zeros(2, 3, 4), *GRIDS) == [0.0] * 3
    assert first_best(torch.zeros(2), GRIDS[0], otherwise=0.1) == [0.1]


def test_accuracies_of_leading_dimensions():
    logits = torch.eye(3).repeat(4, 1)
    assert accuracy(torch.stack([logits, -logits]), LABELS)[0] == 1
