"""The preprocessing of a predictor, in words and numbers that any program can read."""

import json
from typing import Any

from clipadapt import __version__
from clipadapt.runs.predictor import Predictor


def preprocessing(predictor: Predictor) -> dict[str, Any]:
    """Return how an RGB image becomes pixels `[3, height, width]`, as plain values."""
    clip, framing = predictor.model.clip, predictor.framing
    (height, width), side = clip.image_size, min(clip.image_size)
    how, by = clip.preprocess.get("resize_mode", "shortest"), clip.preprocess["interpolation"]
    shape = {
        "crop": "the image as it is",
        "pad": f"{framing.pad_colour} beside the shorter side of the image, to a square",
        "squash": "the shorter side of the image stretched (bicubic), to a square",
    }[framing.resize]
    resized = {
        "shortest": (
            f"the shorter side resized to {side}, the longer one to int({side} * longer / shorter) ({by}, "
            f"antialiased), then the centre cropped, from round((longer - {side}) / 2) on"
        ),
        "squash": f"both sides resized ({by}, antialiased)",
        "longest": f"the longer side resized ({by}, antialiased), the rest filled up",
    }[how]
    return {
        "steps": [shape, resized, "divided by 255, less mean, divided by std", "channels first: [3, height, width]"],
        "size": [height, width],
        "mean": list(clip.preprocess["mean"]),
        "std": list(clip.preprocess["std"]),
        "interpolation": by,
        "resize_mode": how,
        "frame": framing.resize,
        "pad_colour": framing.pad_colour if framing.resize == "pad" else None,
        "bands": None if framing.bands is None else repr(framing.bands),
        "class_names": predictor.class_names,
    }


def dump(predictor: Predictor) -> str:
    """Return the preprocessing as JSON."""
    return json.dumps(preprocessing(predictor), indent=2) + "\n"


def describe(predictor: Predictor) -> dict[str, str]:
    """Return what a file says of itself, as texts by key."""
    return {
        "class_names": json.dumps(predictor.class_names),
        "preprocess": json.dumps(preprocessing(predictor)),
        "backbone": str(predictor.model.clip.source["name"]),
        "clipadapt": __version__,
    }
