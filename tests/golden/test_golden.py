"""Every method reproduces the numbers recorded from its reference code."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden.quantities import HERE, TABLE, Record, compute, in_shape


def record_paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.json") if path.with_suffix(".npz").is_file())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "path" not in metafunc.fixturenames:
        return
    paths = record_paths(Path(metafunc.config.getoption("--records") or HERE / "records"))
    assert paths, "there are no records"
    later = pytest.mark.xfail(strict=True, raises=LookupError, reason="its method is yet to come")
    metafunc.parametrize(
        "path",
        [pytest.param(path, id=path.stem, marks=[later] if path.stem in TABLE["later"] else []) for path in paths],
    )


def compare(path: Path, device: str) -> None:
    record = Record.read(path)
    found = compute(record, device)
    names, checked = record.names, 0
    for name, entry in record.meta["tensors"].items():
        if entry["role"] != "output" or name in names.get("left_out", {}):
            continue
        ours = found[names.get("renamed", {}).get(name, name)].detach().cpu().numpy()
        expected = record.arrays[name]
        ours = in_shape(ours, expected.shape, name)
        if "tolerance" in entry:
            assert np.abs(ours - expected).max() <= entry["tolerance"], name
        else:
            np.testing.assert_array_equal(ours, expected, err_msg=name)
        checked += 1
    assert checked


def test_record(path: Path) -> None:
    compare(path, "cpu")


@pytest.mark.gpu
def test_record_on_the_gpu(path: Path) -> None:
    torch.backends.cudnn.allow_tf32 = False
    compare(path, "cuda")
