"""Descriptions of classes as prompts, and random texts in the place of descriptions."""

import string
from collections.abc import Sequence
from itertools import chain
from random import Random
from statistics import mean
from typing import Annotated, Literal

from annotated_types import Ge, MinLen

from clipadapt.adaptations.sentences import SentenceScores
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.class_tables import checked_table, look_up
from clipadapt.files import TablePath
from clipadapt.interfaces import SupportView, Templates, class_prompts, underscores_to_spaces

# fmt: off
WORDS = [
    "apple", "bottle", "bridge", "butter", "button", "candle", "canyon", "carpet", "castle", "cherry", "cloud",
    "coffee", "copper", "corner", "cotton", "desert", "dragon", "engine", "feather", "finger", "forest",
    "garden", "glass", "hammer", "harbor", "helmet", "island", "jacket", "jungle", "kettle", "ladder",
    "lantern", "lemon", "marble", "meadow", "mirror", "needle", "ocean", "orange", "paper", "pencil", "pepper",
    "pillow", "pocket", "puzzle", "rabbit", "ribbon", "river", "rocket", "saddle", "shadow", "silver", "spider",
    "summer", "temple", "thunder", "tunnel", "valley", "velvet", "village", "violin", "window", "winter",
]
# fmt: on
"""Common words, of which random texts are made unless others are given."""

VERBS = ("has", "often", "typically", "may", "can")
"""Beginnings of descriptors that have a verb of their own."""


class ClassDescriptions(SentenceScores):
    """VCD: classification by description (Menon & Vondrick, ICLR 2023, arXiv:2210.07183).

    Each descriptor of a class becomes a sentence about it, "dog, which has four legs". An image's score for a class is
    the mean of its cosines with the class's sentences; the class name alone is not among them.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        descriptions: descriptors of each class, by its name, or by each of its names for CLIP, where no descriptor is
            an empty one; in settings also a YAML or JSON file of them.
        name_place: whether the name comes before the descriptor, or after it.
        before_text: text before the name, where that comes first.
        between_text: text between name and descriptor.
        after_text: text at the end, where the name comes first.
        clauses: whether a descriptor becomes a relative clause, by its first letters: "which is", "which", "which has".
        aggregate: as of `SentenceScores`.
        truncate: as of `SentenceScores`.

    Raises:
        UserError: a class isn't in `descriptions`.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        descriptions: dict[str, list[str]] | TablePath,
        name_place: Literal["prepend", "append"] = "prepend",
        before_text: str = "",
        between_text: str = ", ",
        after_text: str = "",
        clauses: bool = True,
        aggregate: Literal["mean", "normalized", "max"] = "mean",
        truncate: bool = True,
    ) -> None:
        self.descriptions = checked_table(descriptions, "descriptions")
        self.name_place, self.clauses = name_place, clauses
        self.before_text, self.between_text, self.after_text = before_text, between_text, after_text
        super().__init__(clip, task, aggregate, truncate)

    def texts(self, label: str, names: Sequence[str]) -> list[str]:
        """Return the sentences of one class, given its label and its names for CLIP."""
        found = look_up(self.descriptions, label, names, "descriptions")
        return [self.sentence(name, one) for name, own in found.items() for one in own or [""]]

    def sentence(self, name: str, descriptor: str) -> str:
        """Return a sentence of a class name and a descriptor."""
        name, clause = underscores_to_spaces(name), as_clause(descriptor) if self.clauses else descriptor
        if self.name_place == "append":
            return f"{clause}{self.between_text}{name}"
        return f"{self.before_text}{name}{self.between_text}{clause}{self.after_text}"


class RandomTexts(SentenceScores):
    """WaffleCLIP: random words and characters in place of descriptions (Roth et al., ICCV 2023, arXiv:2306.07282).

    All classes share the texts: "A photo of a dog, which has marbl." The words are as many as an average class name
    has, each as long as their average; characters come in as many groups, and are more than the longest word of an
    average name.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        count: number of texts of words, and of texts of characters.
        seed: of the drawing; average figures over several.
        words: words to draw from; common ones of ours if None.
        characters: characters to draw from.
        before_text: text before the name.
        separator: text between name and clause.
        after_text: text at the end.
        templates: texts with `{}` for the name, in place of those drawn.
        aggregate: as of `SentenceScores`.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        count: Annotated[int, Ge(1)] = 15,
        seed: int = 0,
        words: Annotated[list[str], MinLen(1)] | None = None,
        characters: Annotated[str, MinLen(1)] = string.ascii_lowercase,
        before_text: str = "A photo of a ",
        separator: str = ", ",
        after_text: str = ".",
        templates: Templates | None = None,
        aggregate: Literal["mean", "normalized", "max"] = "mean",
    ) -> None:
        random, (number, length, longest) = Random(seed), name_lengths(task.class_names)
        drawn = []
        for _ in range(count):
            drawn.append(" ".join(random.choice(words or WORDS)[:length] for _ in range(number)))
            groups = [random.choices(characters, k=longest // number + 1) for _ in range(number)]
            drawn.append(", ".join(map("".join, groups)))
        made = [f"{before_text}{{}}{separator}{as_clause(text)}{after_text}" for text in drawn]
        self.random_templates = templates or made
        super().__init__(clip, task, aggregate, truncate=False)

    def texts(self, label: str, names: Sequence[str]) -> list[str]:
        """Return the random texts with the names for CLIP of one class."""
        return [*chain.from_iterable(class_prompts(self.random_templates, names))]


def as_clause(descriptor: str) -> str:
    """Return a descriptor as a relative clause, by its first letters alone, as in the authors' code."""
    if descriptor.startswith(("a", "used")):
        return f"which is {descriptor}"
    return f"which {descriptor}" if descriptor.startswith(VERBS) else f"which has {descriptor}"


def name_lengths(names: Sequence[str]) -> tuple[int, int, int]:
    """Return the mean number of words of a name, at least 1, and the mean lengths of its words and of its longest."""
    lengths = [[len(word) for word in name.split(" ")] for name in names]
    number, length = max(1, round(mean(map(len, lengths)))), round(mean(map(mean, lengths)))
    return number, max(1, length), round(mean(map(max, lengths)))
