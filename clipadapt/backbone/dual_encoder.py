"""The frozen backbone: a dual encoder of any family, as towers asked for by name."""

import copy
import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn

from clipadapt.backbone.prompts import Prompts, in_chunks
from clipadapt.backbone.rows import Prompt, Rows, Token
from clipadapt.backbone.text import PromptLayout
from clipadapt.backbone.tokenizer import Tokenizer
from clipadapt.backbone.towers import Tower
from clipadapt.errors import UserError

ROWS_AT_ONCE = 2**16
"""Rows of hand-written prompts that are encoded at once: about 2 GB for ViT-B/16's text tower."""


class DualEncoder(ABC):
    """A frozen dual encoder; a family of them is a subclass in a file of its own, and a YAML in conf/backbone.

    The YAML's keys are the arguments of the subclass, unless `target` names a function that builds it: then `another`
    is overridden, too.

    Args:
        model: the module with all weights; it is frozen and put in evaluation mode.
        source: `name` and the other settings that build the backbone again; recorded with every run.
        scale: the factor on cosine similarities.
        preprocess: `size`, `mean`, `std` and `interpolation` of the images it reads.
        transform: PIL image to pixels `[3, height, width]`, centre crop.
        tokenizer: of its text tower; or, as a text, why there is none.
        layout: how its text tower wants prompts laid out.
        width: channels of the joint space.
        widths: channels of the towers, by name.
        logit_bias: what is added to scaled cosines to make log-odds of a pair, where the model was trained with a
            sigmoid, as SigLIP's are (Zhai et al., ICCV 2023, arXiv:2303.15343, section 3.2); None where it wasn't.
        known_tokens: ids of the tokens that pretraining saw, None where it may be taken to have seen all.

    Attributes:
        towers: `Tower`s by name; "image" and "text" are always there.
        width, widths: None where the architecture isn't known.
        parameters: number of weights.
        fingerprint: hash of all weights and of the preprocessing.
    """

    target: str | None = None
    """What a YAML of this family names as its `_target_`; the class itself where None."""

    def __init__(
        self,
        model: Any,
        source: Mapping[str, Any],
        *,
        scale: float,
        preprocess: dict[str, Any],
        transform: Callable[[Image.Image], Tensor],
        tokenizer: Tokenizer | str,
        layout: PromptLayout,
        width: int | None = None,
        widths: Mapping[str, int | None] | None = None,
        logit_bias: float | None = None,
        known_tokens: frozenset[int] | None = None,
    ) -> None:
        self.model = model.requires_grad_(False).eval()
        kind = type(self)
        self.source = {"_target_": kind.target or f"{kind.__module__}.{kind.__qualname__}", **source}
        self.known_tokens = known_tokens
        self.scale, self.logit_bias = scale, logit_bias
        self.preprocess, self.transform = preprocess, transform
        self._tokenizer, self._layout = tokenizer, layout
        self.width, self.widths = width, dict(widths or {})
        self.towers = self.build_towers(self.model)
        self.parameters = sum(weight.numel() for weight in self.model.parameters())
        self.fingerprint = _fingerprint(self.model, preprocess)

    def another(self, **settings: Any) -> Self:
        """Load another backbone of this family: with these settings, and this one's for the rest."""
        return type(self)(**{**self.settings, **settings})

    @property
    def settings(self) -> dict[str, Any]:
        """What builds this backbone again, by the keys of its family's YAML."""
        return {key: value for key, value in self.source.items() if key != "_target_"}

    @abstractmethod
    def build_towers(self, model: Any) -> dict[str, Tower]:
        """Return the towers over a model's weights, by name; the model may be a copy of this backbone's."""

    def build_tower_of_all_tokens(self) -> Tower:
        """Return the image tower with features `[..., 1 + P, D]`: the pooled one, then those of P patches.

        Raises:
            UserError: the family, or this backbone of it, has no such features.
        """
        raise UserError(
            f"the image tower of backbone '{self.source['name']}' has no features of its patches: use a vision "
            "transformer with a class token, such as ViT-B-16, or a ResNet of CLIP"
        )

    @cached_property
    def image_of_all_tokens(self) -> Tower:
        """The tower of `build_tower_of_all_tokens`, built once; raises what that does."""
        return self.build_tower_of_all_tokens()

    def tower(self, name: str) -> Tower:
        """Return the tower of a name, such as "image" or "text".

        Raises:
            UserError: there is no such tower.
        """
        if name not in self.towers:
            known = ", ".join(self.towers)
            raise UserError(f"backbone '{self.source['name']}' has no {name} tower: take one of {known}")
        return self.towers[name]

    @property
    def image(self) -> Tower:
        """The image tower."""
        return self.towers["image"]

    @property
    def text(self) -> Tower:
        """The text tower."""
        return self.towers["text"]

    @property
    def image_width(self) -> int | None:
        """Channels of the image tower; None where the architecture isn't known."""
        return self.widths.get("image")

    @property
    def text_width(self) -> int | None:
        """Channels of the text tower; None where the architecture isn't known."""
        return self.widths.get("text")

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self:
        """Move the weights; the only way the backbone's device or number format changes."""
        self.model.to(device=device, dtype=dtype)
        return self

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels of the images that it reads."""
        sides = self.preprocess["size"]
        return (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        found: torch.device = next(self.model.parameters()).device
        return found

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        found: torch.dtype = next(self.model.parameters()).dtype
        return found

    def weights(self, tower: str) -> dict[str, dict[str, nn.Parameter]]:
        """Return the weights that each stage of a tower reads, by its point, and by their names in the model."""
        names = {id(weight): name for name, weight in self.model.named_parameters()}
        own = self.tower(tower)
        read = {point: own.parameters(point) for point in own.stages}
        return {point: {names[id(weight)]: weight for weight in weights} for point, weights in read.items()}

    def towers_with(self, weights: Mapping[str, nn.Parameter]) -> dict[str, Tower]:
        """Return the towers, by name, with other weights in the places of those of their names; the rest is shared."""
        placed = {id(weight): weights.get(name, weight) for name, weight in self.model.named_parameters()}
        shared = {id(buffer): buffer for buffer in self.model.buffers()}
        return self.build_towers(copy.deepcopy(self.model, {**placed, **shared}))

    @property
    def tokenizer(self) -> Tokenizer:
        """Splices prompts into token sequences.

        Raises:
            UserError: the model's tokenizer could not be had.
        """
        if isinstance(self._tokenizer, str):
            raise UserError(self._tokenizer)
        return self._tokenizer

    def tokenize(self, prompts: Sequence[Sequence[Prompt]]) -> Rows:
        """Prompts of C classes with as many templates each, as the activation that enters the text tower.

        Raises:
            UserError: a prompt is longer than the text tower reads, or the model's tokenizer could not be had.
        """
        tokenizer = self.tokenizer
        shape = len(prompts), len(prompts[0])
        return self.arrange(self._sequences(prompts), shape, tokenizer.placeholder, tokenizer.pad)

    def tokenize_in_chunks(
        self, prompts: Sequence[Sequence[Prompt]], max_rows: int | None = None, unshared_prefix: bool = False
    ) -> Prompts:
        """The same in chunks of at most so many rows, for sets of prompts of any size; raises what `tokenize` does.

        Templates that start differently are laid out apart, since each has a start that all classes share. With
        `unshared_prefix`, no prompt shares rows with another.
        """
        tokenizer = self.tokenizer

        def arrange(sequences: Sequence[Sequence[Token]], shape: tuple[int, int], first_class: int) -> Rows:
            return self.arrange(sequences, shape, tokenizer.placeholder, tokenizer.pad, first_class, unshared_prefix)

        def count_rows(sequences: Sequence[Sequence[Token]]) -> int:
            return self._layout.count_rows(sequences, unshared_prefix)

        shape = len(prompts), len(prompts[0])
        return in_chunks(self._sequences(prompts), shape, max_rows, arrange, count_rows)

    def text_features(self, prompts: Sequence[Sequence[Prompt]]) -> Tensor:
        """Frozen features `[C, templates, D]` of hand-written prompts of C classes; raises what `tokenize` does."""
        with torch.no_grad():
            features: Tensor = self.tokenize_in_chunks(prompts, ROWS_AT_ONCE).run(self.text)
        return features

    def _sequences(self, prompts: Sequence[Sequence[Prompt]]) -> list[list[Token]]:
        """Token sequences of prompts, those of one class after another."""
        tokenizer = self.tokenizer
        sequences = [tokenizer.sequence(prompt) for templates in prompts for prompt in templates]
        self._warn_unknown({token for sequence in sequences for token in sequence if isinstance(token, int)})
        return sequences

    def arrange(
        self,
        sequences: Sequence[Sequence[Token]],
        shape: tuple[int, int],
        placeholder: int = 0,
        pad: int = 0,
        first_class: int = 0,
        unshared_prefix: bool = False,
    ) -> Rows:
        """Lay out token sequences, ending in their end token, the way this text tower wants them.

        Args:
            sequences: classes * templates token sequences, those of one class after another.
            shape: (classes, templates).
            placeholder: token id that stands where a learned vector goes.
            pad: token id after the end, where the tower reads whole sequences.
            first_class: number of the first of these classes among all that the adaptation knows.
            unshared_prefix: whether each sequence has rows of its own of what all share at their start.
        """
        layout = self._layout.arrange(sequences, shape, placeholder, pad, first_class, unshared_prefix).to(self.device)
        return Rows(layout.ids, layout)

    def _warn_unknown(self, tokens: set[int]) -> None:
        unknown = sorted(tokens - self.known_tokens) if self.known_tokens is not None else []
        if not unknown:
            return
        words = ", ".join(f"'{self.tokenizer.decode([token]).strip()}'" for token in unknown)
        text = f"the backbone {self.source['name']} never saw these words in its pretraining: {words}"
        warnings.warn(text, UserWarning, stacklevel=4)


def _fingerprint(model: Any, preprocess: dict[str, Any]) -> str:
    digest = hashlib.sha256(repr(sorted(preprocess.items())).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
