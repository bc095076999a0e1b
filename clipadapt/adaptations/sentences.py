"""Sentences about each class as its prompts."""

from collections.abc import Sequence

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.rows import Prompt
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView


class ClassSentences(Adaptation):
    """Zero-shot CLIP with sentences about each class, as in CuPL (Pratt et al., ICCV 2023, arXiv:2209.03320).

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        sentences: whole sentences of each class, by its name for CLIP, as many for every class; the task's
            templates if None.

    Raises:
        UserError: the classes have different numbers of sentences, or none.
    """

    def __init__(self, clip: DualEncoder, task: SupportView, sentences: dict[str, list[str]] | None = None) -> None:
        super().__init__(clip, task)
        self.sentences = sentences
        counts = {len(own): name for name, own in (sentences or {}).items()}
        if sentences is not None and (len(counts) != 1 or 0 in counts):
            found = ", ".join(f"{name} has {count}" for count, name in counts.items()) or "there are none"
            raise UserError(f"`sentences` must have the same number for every class, at least one: {found}")

    def prompts(self, names: Sequence[str]) -> list[list[Prompt]]:
        """Return the sentences of each class.

        Raises:
            UserError: a class has no sentences.
        """
        if self.sentences is None:
            return super().prompts(names)
        if absent := [name for name in names if name not in self.sentences]:
            raise UserError(f"there are no sentences of class {absent[0]}: add some under its name to `sentences`")
        return [[*self.sentences[name]] for name in names]
