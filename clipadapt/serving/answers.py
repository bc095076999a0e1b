"""Options of a request for predictions, and its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from clipadapt.errors import UserError, nearest
from clipadapt.paths import shorten
from clipadapt.runs.predictor import Predictor

SHARES = ("reject", "coverage")
KEYS = ("top", *SHARES, "threshold", "unknown", "calibrate")


@dataclass(frozen=True)
class Options:
    """Options of a request.

    Attributes:
        top: number of classes in the answer, the most probable ones; None for all.
        shares: `reject` and `coverage`, as of `Predictor.predict` and `predict_set`.
        calibrate: whether to scale probabilities by the run's temperature.
        threshold: the probability below which an answer is none of the classes; None for none.
        unknown: what an answer of none of the classes is called; None for JSON's null.
    """

    top: int | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    calibrate: bool = False
    threshold: float | None = None
    unknown: str | None = None

    @property
    def known(self) -> bool:
        """Whether the run's validation images are asked."""
        return bool(self.shares) or self.calibrate


def read_options(given: Sequence[tuple[str, str]], predictor: Predictor) -> Options:
    """Return the options of a request's address.

    Raises:
        UserError: an option is unknown, given twice or has a wrong value, or the run has too few validation images.
    """
    texts = dict(given)
    for key in texts:
        if key not in KEYS:
            raise UserError(f"there is no option {shorten(key)}: {nearest(key, KEYS)}")
    if len(texts) < len(given):
        raise UserError("an option of the request is given twice")
    shares = {key: _read_share(key, texts[key]) for key in SHARES if key in texts}
    calibrate = texts.get("calibrate", "false")
    if calibrate not in ("true", "false"):
        raise UserError(f"calibrate={shorten(calibrate)} does not fit: it must be true or false")
    threshold = _read_share("threshold", texts["threshold"]) if "threshold" in texts else None
    check_rejection(texts, predictor.class_names)
    options = Options(_read_top(texts.get("top")), shares, calibrate == "true", threshold, texts.get("unknown"))
    if options.known:
        predictor.known_scores().check(shares, options.calibrate)
    return options


def check_rejection(texts: Mapping[str, str], class_names: Sequence[str]) -> None:
    """Check the options that say which answers are none of the classes; raises UserError."""
    if "reject" in texts and "threshold" in texts:
        raise UserError("reject and threshold both say which answers are none of the classes: give one of them")
    if "unknown" in texts and not {"reject", "threshold"} & {*texts}:
        raise UserError("unknown names the answers that reject or threshold take away: give one of these, too")
    if texts.get("unknown") in class_names:
        raise UserError(f"unknown={shorten(texts['unknown'])} is the name of a class: give another")


def _read_top(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and int(text[:10]) > 0):
        raise UserError(f"top={shorten(text)} does not fit: it must be a whole number (at least 1)")
    return int(text[:10])


def _read_share(key: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise UserError(f"{key}={shorten(text)} does not fit: it must be a number above 0 and below 1")
    return share


def write_answers(
    images: Sequence[str], probabilities: Tensor, names: Sequence[str], predictor: Predictor, options: Options
) -> list[dict[str, Any]]:
    """Return an entry for each image, as `clipadapt predict format=json` writes it.

    Args:
        images: names of the B images.
        probabilities: `[B, C]`.
        names: of the C classes, each once.
        predictor: whose probabilities they are.
        options: of the request.
    """
    known = predictor.known_scores() if options.known else None
    no, sets = [False] * len(images), None
    if known and "reject" in options.shares:
        no = known.reject(probabilities, options.shares["reject"]).tolist()
    if known and "coverage" in options.shares:
        sets = known.sets(probabilities, options.shares["coverage"], names)
    shown = known.calibrate(probabilities) if known and options.calibrate else probabilities
    if options.threshold is not None:
        no = (shown.amax(dim=-1) < options.threshold).tolist()
    found = []
    for place, (image, row) in enumerate(zip(images, shown, strict=True)):
        best = in_order(row, names)
        answer = {"image": image, "class": options.unknown if no[place] else best[0][0], "probability": best[0][1]}
        found.append(
            answer | ({} if sets is None else {"set": sets[place]}) | {"probabilities": dict(best[: options.top])}
        )
    return found


def in_order(probabilities: Tensor, names: Sequence[str]) -> list[tuple[str, float]]:
    """Return the names of classes with an image's probabilities `[C]`, the most probable first."""
    values, order = probabilities.sort(descending=True, stable=True)
    return [(names[k], value) for k, value in zip(order.tolist(), values.tolist(), strict=True)]
