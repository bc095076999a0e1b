"""The model card of an artifact: a README.md with the metadata that the Hugging Face hub reads."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from clipadapt.data.class_words import other_words, with_words
from clipadapt.errors import join_names
from clipadapt.report.tables import count_text, figure_text, parameters_text

SHOWN, SHOWN_TEMPLATES = 50, 3
"""Class names and templates in a card."""

PACKAGES = ("clipadapt", "torch", "open_clip_torch")
"""Packages whose versions a card names."""

CARD = """\
---
{metadata}
---

# {title}

{backbone} adapted to {classes} classes by {method}{paper}, with [clipadapt](https://pypi.org/project/clipadapt/).

```python
import clipadapt

predictor = clipadapt.load("this folder, or user/name on the hub")
predictor.predict(["photo.jpg"])
```

## Classes

{names}

## How it was made

{made}

## Figures

{figures}

## What is in it

`adaptation.safetensors` has what was learned ({size}), `config.json` everything that is known of it.
The backbone's weights are not in it: clipadapt loads them by name and compares their fingerprint. Nothing in the folder
is code.

No licence is set: that is for whoever publishes it, and depends on the backbone's weights and on the images.
"""


def model_card(
    settings: Mapping[str, Any], record: Mapping[str, Any], metrics: Mapping[str, Any], hub_id: str | None
) -> str:
    """Return the text of a model card.

    Args:
        settings: of an artifact.
        record: of the artifact.
        metrics: of the artifact.
        hub_id: the repository of the backbone on the Hugging Face hub; None if it has none.
    """
    method, asked = settings["method"], record["for_classes"] or record["class_names"]
    words = other_words(asked) if isinstance(asked, Mapping) else record["words"]
    names = with_words(asked, words)
    title, backbone = method["title"] or method["name"], record["backbone"]
    arxiv = f", [arXiv {method['arxiv']}](https://arxiv.org/abs/{method['arxiv']})" if method["arxiv"] else ""
    weights = "random weights" if backbone.get("pretrained") is None else f"weights {backbone['pretrained']}"
    return CARD.format(
        metadata=metadata(title, method["name"], record, metrics, hub_id),
        title=escaped(f"{title} on {record['task']}"),
        backbone=escaped(f"{backbone['name']} ({weights})"),
        classes=f"{len(names):,}",
        method=escaped(title),
        paper=f" ({escaped(method['paper'])}{arxiv})" if method["paper"] else "",
        names=join_names([escaped(name) for name in names], SHOWN),
        made="\n".join(f"- {line}" for line in describe(settings, record)),
        figures="\n\n".join(filter(None, [figures_table(metrics), metrics.get("test_note")])),
        size=f"learned numbers: {parameters_text(metrics['parameters'], metrics['share'])}",
    )


def metadata(title: str, method: str, record: Mapping[str, Any], metrics: Mapping[str, Any], hub_id: str | None) -> str:
    """Return the metadata of a model card in YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=test if test != "test" else record["task"],
            dataset_name=record["task"],
            dataset_split=test,
            metric_type=name,
            metric_value=round(metrics["tests"][test][name], 4),
        )
        for test in metrics["tests"]
        for name in metrics.get("figures", {})
    ]
    card = ModelCardData(
        model_name=f"{title} on {record['task']}",
        library_name="clipadapt",
        pipeline_tag="image-classification",
        tags=["clipadapt", "clip", "few-shot", method],
        base_model=hub_id,
        eval_results=results or None,
    )
    text: str = card.to_yaml()
    return text


def escaped(text: str) -> str:
    """Return a text that stands in Markdown as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", " ".join(text.split()))


def describe(settings: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines on how a run was made."""
    shots = record["shots"]
    images = "all images" if shots == "all" else count_text(shots, "image")
    yield f"learned from {images} a class, drawn with seed {record['seed']}"
    yield f"templates: {join_names([f'`{template}`' for template in record['templates']], SHOWN_TEMPLATES)}"
    if "choice" in settings:
        yield f"the method was chosen by {settings['choice']['by']} among {len(settings['choice']['among'])}"
    if record["for_classes"]:
        yield "the classes were named afterwards: it wasn't measured on them"
    versions = record.get("versions", {})
    yield ", ".join(f"{name} {versions[name]}" for name in PACKAGES if name in versions) or "by unknown versions"


def figures_table(metrics: Mapping[str, Any]) -> str:
    """Return the figures on each test set as a table in Markdown, zero-shot beside adapted."""
    if not metrics["tests"] or not metrics.get("figures"):
        return "It wasn't measured: there were no test images."
    rows = [
        f"| {test} | {figure['title']} | {figure_text(found[f'zero_shot_{name}'], figure)} | "
        f"{figure_text(found[name], figure)} |"
        for test, found in metrics["tests"].items()
        for name, figure in metrics["figures"].items()
    ]
    return "\n".join(["| test set | figure | zero-shot | adapted |", "|---|---|---|---|", *rows])
