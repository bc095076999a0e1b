"""What ships: the lists in setup.cfg, and the package run as a checkout and as a wheel, from another folder."""

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def run_from_elsewhere(path: Path, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, "-m", "clipadapt", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_package_is_listed(setup):
    listed = set(setup["options"]["packages"].split())
    found = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in (ROOT / "clipadapt").rglob("__init__.py")
    }
    assert listed == found | {"clipadapt.conf"}


def test_the_top_level_has_no_output_of_a_run():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    folders = {Path(name).parts[0] for name in tracked if "/" in name}
    assert folders == {".ci", "benchmarks", "clipadapt", "conf", "docs", "recipes", "tests"}


def test_a_checkout_runs_from_elsewhere(tmp_path):
    assert "coop" in run_from_elsewhere(ROOT, tmp_path, "methods", "coop")


def test_a_wheel_has_all_it_needs_and_runs_from_elsewhere(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path), "."]
    copy = tmp_path / "source"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for name in filter(None, tracked):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(build, cwd=copy, check=True)
    installed = tmp_path / "installed"
    (wheel,) = tmp_path.glob("clipadapt-*.whl")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", str(installed), str(wheel)]
    subprocess.run(install, check=True)
    shipped = {
        path.relative_to(installed / "clipadapt" / "conf") for path in (installed / "clipadapt/conf").rglob("*.yaml")
    }
    assert shipped == {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    assert (installed / "clipadapt/data/names/imagenet.yaml").is_file()
    assert (installed / "clipadapt/backbone/tiny/model.safetensors").stat().st_size < 10e6
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    assert "coop" in run_from_elsewhere(installed, folder, "methods")
