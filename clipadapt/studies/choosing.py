"""Choose a method for a task by cross-validation on its support set, within a budget of time.

Methods on features alone are tried first, since their fits take seconds. The others go through successive halving
(Jamieson and Talwalkar, AISTATS 2016, arXiv:1502.07943): all of them get a short fit, the better half a longer one, and
so on. Test images are never looked at.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.errors import UserError
from clipadapt.report.tables import count_text, seconds_text
from clipadapt.studies.candidates import PUBLISHED, Candidate, Fold, without_learning
from clipadapt.studies.fold_fits import FoldFits

CROSS_VALIDATION, PUBLISHED_ORDER = "cross-validation", "published accuracy after one shot"
"""How a method is chosen."""

CHEAP_SHARE, REFIT_SHARE = 0.5, 0.25
"""Largest share of the budget for methods on features alone, and the share that is kept for the last fit."""

FIRST_STEPS, FEWEST_STEPS, SHORTEST = 3, 10, 20
"""Steps of a first fit, which shows what a step takes; fewest steps of a fit that says something, and its smallest part
of a whole fit: a twentieth."""

MEASURED_IMAGES = 8

EQUAL = 6
"""Decimal places up to which scores are compared: float32 rounds means over folds of different sizes."""

FINALISTS, MOST_REPEATS = 3, 5
"""Candidates that the last repetitions compare, and how often the cross-validation is done at the most."""

NO_TIME = "no time left"
SLOW = "too little time left ({} a step)"


@dataclass
class Budget:
    """Seconds that a choice may take, with the last fit."""

    seconds: float
    began: float = field(default_factory=lambda: time.monotonic())

    @property
    def used(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Return the seconds that are left."""
        return self.seconds - self.used

    @property
    def to_choose(self) -> float:
        """Return the seconds that are left beside those that are kept for the last fit."""
        return self.left - REFIT_SHARE * self.seconds


@dataclass
class Chooser:
    """The search for the best of several methods on a task.

    Attributes:
        fits: the fits to folds of the task's support set.
        budget: the time.
        image_seconds: what the image tower takes for an image.
    """

    fits: FoldFits
    budget: Budget
    image_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Measure the speed of the image tower."""
        self.image_seconds = measure_image_seconds(self.fits.clip)

    def choose(self, candidates: Sequence[Candidate]) -> Candidate:
        """Return the best candidate, with the steps that its last fit may have; the others say why they aren't it.

        Raises:
            UserError: the images take longer to encode than the budget, or no candidate could be fitted.
        """
        tried = [one for one in candidates if one.dropped is None]
        if self.fits.folds < 2:
            return self._by_published_accuracy(tried)
        cheap = [one for one in tried if one.cheap]
        if all(one.learns for one in cheap) and any(not one.images_a_step for one in tried):
            self._check_encoding_first(tried[0])
        self._try_cheap(cheap)
        self._halve([one for one in tried if one.dropped is None and len(one.scores) < self.fits.folds])
        best = self._repeat([one for one in candidates if one.dropped is None and one.scores])
        if best is None:
            raise UserError(f"no method could be tried: {self._reasons(candidates)}")
        self._allow_last_fit(best)
        return best

    def _reasons(self, candidates: Sequence[Candidate]) -> str:
        """Return why nothing could be tried: the time, or each method's own reason."""
        if any(one.dropped == NO_TIME for one in candidates):
            minutes = math.ceil(2 * self.budget.used / 60)
            return f"the {self.budget.seconds / 60:g} minutes were over before the first fit: give minutes={minutes}"
        return "; ".join(f"{one.method}: {one.dropped}" for one in candidates)

    def _try_cheap(self, cheap: Sequence[Candidate]) -> None:
        """Fit candidates on features alone to every fold, if whole fits take no more than their share of the time.

        Those without steps, which are solved in closed form, come first, and are fitted to every fold as long as there
        is time to choose; zero-shot CLIP is always tried.
        """
        limit = CHEAP_SHARE * self.budget.seconds
        ordered = sorted(cheap, key=lambda one: (one.learns, self.fits.whole_steps(one)))
        for place, one in enumerate(ordered):
            share = (limit - self.budget.used) / (len(ordered) - place)
            if one.learns and (share if self.fits.whole_steps(one) else self.budget.to_choose) < 0:
                one.dropped = NO_TIME
                continue
            self._look_at(one)
            if not one.learns:
                self._check_encoding(one.seconds)
            whole = self.fits.whole_steps(one)
            if not whole or self.fits.folds * one.seconds_for(whole) <= share:
                one.allow(None)
                self.fits.fit(one, self.fits.repetition(0))

    def _look_at(self, one: Candidate) -> None:
        """Fit a candidate for the first time, for a few steps, to know what a step takes."""
        one.allow(FIRST_STEPS if self.fits.whole_steps(one) else None)
        self.fits.fit(one, self.fits.repetition(0)[:1])

    def _check_encoding(self, seconds: float) -> None:
        """Check that the support set's views can be encoded in the budget.

        Args:
            seconds: what it took to encode one view of each image, or to find it in the cache.
        """
        images, views = len(self.fits.task.support), self.fits.task.views or 0
        if not views:
            return
        needed = views * min(seconds, images * self.image_seconds)
        if self.budget.used + needed > CHEAP_SHARE * self.budget.seconds:
            minutes = math.ceil((self.budget.used + needed) / CHEAP_SHARE / 60)
            raise UserError(
                f"to encode {count_text(views, 'view')} of {count_text(images, 'image')} takes about "
                f"{seconds_text(needed)}, and {seconds_text(self.budget.used)} of minutes="
                f"{self.budget.seconds / 60:g} went before: give minutes={minutes}, or task.views=0"
            )

    def _check_encoding_first(self, any_of_them: Candidate) -> None:
        """Check the same where every method learns: zero-shot CLIP shows what one view of each image takes."""
        if self.fits.task.views:
            first = without_learning(any_of_them)
            self.fits.fit_to(first, self.fits.fold(*self.fits.repetition(0)[0]))
            self._check_encoding(first.seconds)

    def _halve(self, others: Sequence[Candidate]) -> None:
        """Fit the other candidates by successive halving; those that stay have scores on every fold.

        The rounds before the last share half of the time, and fit to the first folds only.
        """
        alive = [*others]
        rounds = max(1, math.ceil(math.log2(max(1, len(alive)) / FINALISTS)) + 1)
        share = max(0.0, self.budget.to_choose) / 2 / max(1, rounds - 1)
        for number in range(1, rounds):
            folds = self.fits.repetition(0)[:number]
            self._fit_within(alive, folds, self.budget.used + share)
            ranked = self._ranked([one for one in alive if one.dropped is None])
            alive = ranked[: max(FINALISTS, math.ceil(len(ranked) / 2))]
            for one in ranked[len(alive) :]:
                one.dropped = f"behind ({steps_text(one.most_steps)}, {len(folds)} of {self.fits.folds} folds)"
        self._fit_within(alive, self.fits.repetition(0), self.budget.used + self.budget.to_choose)

    def _fit_within(self, alive: Sequence[Candidate], folds: Sequence[Fold], until: float) -> None:
        """Fit candidates to some folds, in equal shares of the time until then."""
        for place, one in enumerate(alive):
            left = until - self.budget.used
            self._climb(one, folds, left / (len(alive) - place), left)

    def _climb(self, one: Candidate, folds: Sequence[Fold], share: float, left: float) -> None:
        """Fit a candidate to some folds, with as many steps as its share of the time allows.

        Args:
            one: the candidate.
            folds: the folds.
            share: seconds that it may take.
            left: seconds that it may take if its share is too small for fits that say something.
        """
        before = self.budget.used
        if not one.step_seconds:
            expected = 3 * self.image_seconds * one.images_a_step  # forwards and backwards
            if left <= FIRST_STEPS * expected:
                one.dropped = SLOW.format(f"{expected:.2g} s") if expected else NO_TIME
                return
            self._look_at(one)
        if one.dropped is not None:
            return
        spent = self.budget.used - before
        whole = self.fits.whole_steps(one)
        fewest = min(whole, max(FEWEST_STEPS, whole // SHORTEST))
        if one.steps_within((left - spent) / len(folds)) < fewest:
            one.dropped = SLOW.format(f"{one.step_seconds:.2g} s")
            return
        affordable = one.steps_within((share - spent) / len(folds))
        steps = max(affordable, fewest)
        one.allow(None if steps >= whole else steps)
        self.fits.fit(one, folds)

    def _repeat(self, found: Sequence[Candidate]) -> Candidate | None:
        """Return the best candidate after further repetitions among the best ones, as far as there is time."""
        for repeat in range(1, MOST_REPEATS):
            best = self._ranked(found)[:FINALISTS]
            needed = sum(one.seconds / max(1, len(one.scores)) for one in best) * self.fits.folds
            if len(best) < 2 or needed > self.budget.to_choose:
                break
            for one in best:
                self.fits.fit(one, self.fits.repetition(repeat))
            found = [one for one in found if one.dropped is None]
        return next(iter(self._ranked(found)), None)

    def _ranked(self, found: Sequence[Candidate]) -> list[Candidate]:
        """Return candidates by their scores, the best first; equal ones by their losses."""
        return sorted(found, key=lambda one: (-self.fits.sign * round(one.score(), EQUAL), one.loss()))

    def _allow_last_fit(self, best: Candidate) -> None:
        """Allow the chosen candidate a whole fit, or as many steps as fit in the rest of the budget."""
        room, whole = best.steps_within(self.budget.left), self._last_steps(best)
        best.most_steps = None if whole <= max(0, room) else max(room, best.most_steps or FEWEST_STEPS)

    def _last_steps(self, one: Candidate) -> int:
        """Return the number of steps of a whole fit to all images."""
        return one.whole_steps(len(self.fits.task.support), self.fits.task.shots)

    def _by_published_accuracy(self, candidates: Sequence[Candidate]) -> Candidate:
        """Return the candidate with the best published accuracy after one shot whose fit is within the budget.

        Raises:
            UserError: none of them has a published accuracy and can be fitted.
        """
        for one in sorted(candidates, key=lambda one: -PUBLISHED.get(one.method, 0.0)):
            if one.method not in PUBLISHED:
                break
            one.allow(FIRST_STEPS)
            self.fits.fit_to(one, self.fits.task.without_tests())
            one.most_steps = None
            if one.dropped is None and one.seconds_for(self._last_steps(one)) < self.budget.left:
                return one
            one.dropped = one.dropped or SLOW.format(f"{one.step_seconds:.2g} s")
        known = ", ".join(PUBLISHED)
        raise UserError(
            "with one image a class there is nothing to hold out, and no method that was named has a published "
            f"accuracy after one shot and fits in the budget: give more images, more minutes, or one of {known}"
        )


def steps_text(most_steps: int | None) -> str:
    """Return a number of steps in words; None is all of them."""
    return "all steps" if most_steps is None else count_text(most_steps, "step")


def measure_image_seconds(clip: DualEncoder) -> float:
    """Return the seconds that the image tower takes for one of several images, without gradients, on its device."""
    pixels = torch.zeros(MEASURED_IMAGES, 3, *clip.image_size, device=clip.device, dtype=clip.dtype)
    seconds = 0.0
    for _ in range(2):  # the first time, a device gets ready
        began = time.monotonic()
        with torch.no_grad():
            clip.image.run(pixels).sum().item()  # waits for the device
        seconds = time.monotonic() - began
    return seconds / MEASURED_IMAGES
