"""The embedded backbone is what its card says."""

import numpy as np
import pytest
import torch

from clipadapt.backbone import tiny
from recipes.pretrain_tiny import figures


@pytest.fixture(scope="module")
def measured() -> dict[str, float]:
    return figures()


@pytest.mark.slow
def test_the_card_has_the_figures(measured):
    assert measured.keys() == tiny.card()["figures"].keys()
    for name, value in tiny.card()["figures"].items():
        assert measured[name] == pytest.approx(value, abs=0.003), name


def test_the_figures_meet_the_bars(measured):
    assert measured["seen pairs"] >= 0.96
    assert measured["held-out pairs"] >= 0.77
    assert measured["digits"] >= 0.85
    assert measured["linear probe on features"] >= 0.94


def test_the_weights_are_small_and_the_rest_is_redrawn():
    assert (tiny.HERE / "model.safetensors").stat().st_size <= 10e6
    embeddings = tiny.weights()["token_embedding.weight"]
    unseen = torch.ones(len(embeddings), dtype=torch.bool)
    unseen[list(tiny.known_tokens())] = False
    deviation = tiny.card()["recipe"]["embedding_deviation"]
    assert embeddings[unseen].std().item() == pytest.approx(deviation, rel=0.01)
    drawn = np.random.RandomState(tiny.card()["recipe"]["embedding_seed"]).standard_normal((3, embeddings.shape[1]))
    first = next(i for i in range(3) if unseen[i])
    assert np.allclose(embeddings[first].numpy(), drawn[first] * deviation, atol=1e-6)
