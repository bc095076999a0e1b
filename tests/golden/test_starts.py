"""What a constructor computes from the task is what the reference code started from, where that isn't random."""

import pytest
import torch

from tests.golden.quantities import HERE, TABLE, Bench, Record, settings_of, variants

STARTS = [("lpp", "weight"), ("lpp", "alpha"), ("crossmodal", "head_weight"), ("tip-f", "cache_keys")]


@pytest.mark.parametrize(("record", "name"), STARTS)
def test_a_start_computed_from_the_task(record, name, monkeypatch):
    monkeypatch.setattr(Bench, "load_start", lambda bench, adaptation: None)
    read = Record.read(HERE / f"records/{record}.json")
    bench = Bench(read, settings_of(read), variants(read)[""], "cpu")
    ours = TABLE[read.meta["method"]]["learnables"][name]
    found, expected = bench.adaptation.state_dict()[ours], read.tensor(f"init/{name}", "cpu")
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=1e-5)


def test_norms_start_as_those_of_clip(monkeypatch):
    monkeypatch.setattr(Bench, "load_start", lambda bench, adaptation: None)
    read = Record.read(HERE / "records/2sfs.json")
    found = Bench(read, settings_of(read), variants(read)[""], "cpu").adaptation.state_dict()
    assert len(read.inits) == 32
    for name, ours in read.inits.items():
        assert torch.equal(found[ours], read.tensor(f"init/{name}", "cpu")), name


def test_prototypes_start_at_the_text():
    read = Record.read(HERE / "records/clap.json")
    bench = Bench(read, settings_of(read), variants(read)[""], "cpu")
    given = bench.adaptation.prototypes - read.tensor("init/prototype_offset", "cpu")
    torch.testing.assert_close(given.detach(), bench.objective.start, atol=2e-5, rtol=1e-5)
