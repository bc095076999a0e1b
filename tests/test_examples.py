"""Every public name has an example in its docstring, and the examples run."""

import doctest
import warnings

import pytest

import clipadapt


@pytest.mark.parametrize("name", clipadapt.__all__)
def test_its_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    public = getattr(clipadapt, name)
    (test,) = doctest.DocTestFinder(recurse=False).find(public, name, globs={**vars(clipadapt), **examples()})
    assert test.examples, f"{name} has no example"
    with warnings.catch_warnings(action="ignore"):
        assert doctest.DocTestRunner().run(test).failed == 0


def examples() -> dict[str, object]:
    """Return the public names, which examples use as they are."""
    return {name: getattr(clipadapt, name) for name in clipadapt.__all__}
