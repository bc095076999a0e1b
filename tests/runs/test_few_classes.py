"""Test sets with fewer classes than the run: figures that they lack are shown nowhere, and the run can be read."""

from dataclasses import replace

import clipadapt
from clipadapt.runs.result import read_result


def test_a_test_set_of_few_classes_has_no_top_five(tmp_path):
    task = clipadapt.load_task("drawn", shots=1)
    test = task.tests["test"]
    few = [index for index, label in enumerate(test.labels) if label < 3][:6]
    tests = {"test": test.select(range(24)), "few": replace(test.select(few), class_names=task.class_names[:3])}
    result = clipadapt.finetune(
        clipadapt.load_backbone(), replace(task, tests=tests), "zero_shot", cpu=True, workers=0, cache=None
    )
    assert "top5_accuracy" in result.metrics["tests"]["test"]
    assert "top5_accuracy" not in {*result.metrics["tests"]["few"]} | {*result.metrics["figures"]}
    assert read_result(result.save(tmp_path / "run")).metrics["tests"] == result.metrics["tests"]
