"""The frozen backbone: a dual encoder of any model family, with towers by name."""

import copy
import hashlib
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn

from clipadapt.backbone.prompts import Prompts, in_chunks
from clipadapt.backbone.rows import Prompt, Rows, Token
from clipadapt.backbone.text import PromptLayout
from clipadapt.backbone.tokenizer import Tokenizer, by_class
from clipadapt.backbone.towers import Tower
from clipadapt.errors import UserError, join_names
from clipadapt.notebook import html_table

ROWS_AT_ONCE = 2**16
SHOWN_WORDS = 10
"""Rows of prompts without learned vectors that are encoded in one chunk: about 2 GB for ViT-B/16's text tower."""


class DualEncoder(ABC):
    """Frozen dual encoder; each model family is a subclass in a file of its own, with a YAML in conf/backbone.

    The YAML's keys are the arguments of the subclass. If `target` names a function that builds the backbone, they are
    the function's arguments, and the subclass overrides `another`.

    Args:
        model: the module with all weights; it is frozen and put in evaluation mode.
        source: `name` and the other settings that rebuild the backbone; recorded with every run.
        scale: the factor on cosine similarities.
        preprocess: `size`, `mean`, `std` and `interpolation` of the input images.
        transform: maps a PIL image to pixels `[3, height, width]`, a centre crop.
        tokenizer: tokenizer of the text tower; or, as a text, the reason why there is none.
        layout: layout of prompts that the text tower requires.
        width: channels of the joint space.
        widths: channels of the towers, by name.
        logit_bias: bias added to scaled cosines to make log-odds of a pair, for models trained with a sigmoid loss,
            such as SigLIP (Zhai et al., ICCV 2023, arXiv:2303.15343, section 3.2); None for other models.
        known_tokens: ids of the tokens that occur in the pretraining data; None if all tokens may be assumed to.

    Attributes:
        towers: `Tower`s by name, always with "image" and "text".
        width, widths: None if the architecture isn't known.
        parameters: number of weights.
        fingerprint: hash of all weights and of the preprocessing.
    """

    target: str | None = None
    """The `_target_` in YAML files of this family; the class itself if None."""

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
        self.known_tokens, self._told_tokens = known_tokens, set[int]()
        self._told_words: set[str] = set()
        self.scale, self.logit_bias = scale, logit_bias
        self.preprocess, self.transform = preprocess, transform
        self._tokenizer, self._layout = tokenizer, layout
        self.width, self.widths = width, dict(widths or {})
        self.towers = self.build_towers(self.model)
        self.parameters = sum(weight.numel() for weight in self.model.parameters())
        self.fingerprint = _fingerprint(self.model, preprocess)

    def __repr__(self) -> str:
        """Return the backbone's name, size and place."""
        size, name = " x ".join(map(str, self.image_size)), self.source["name"]
        return f"<{type(self).__name__} {name}: {self.parameters:,} weights, images {size}, on {self.device}>"

    @property
    def hub_id(self) -> str | None:
        """Return the repository of the weights on the Hugging Face hub; None if they have none."""
        return None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle or a copy holds: all but the towers, which are built from the model again."""
        return {key: value for key, value in vars(self).items() if key not in ("towers", "image_of_all_tokens")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what a pickle or a copy held."""
        vars(self).update(state)
        self.towers = self.build_towers(self.model)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        rows = [
            ("weights", f"{self.parameters:,}, {self.source.get('pretrained') or 'random'}"),
            ("images", " x ".join(map(str, self.image_size))),
            ("joint space", "unknown" if self.width is None else f"{self.width} channels"),
            ("place", f"{self.device}, {self.dtype}"),
        ]
        return html_table(f"Backbone {self.source['name']}", rows)

    def another(self, **settings: Any) -> Self:
        """Load another backbone of this family, with these settings in place of this backbone's."""
        return type(self)(**{**self.settings, **settings})

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings that rebuild this backbone, by the keys of its family's YAML."""
        return {key: value for key, value in self.source.items() if key != "_target_"}

    @abstractmethod
    def build_towers(self, model: Any) -> dict[str, Tower]:
        """Return the towers of a model, by name; the model may be a copy of this backbone's."""

    def build_tower_of_all_tokens(self) -> Tower:
        """Return the image tower with features `[..., 1 + P, D]`: the pooled one, then those of P patches.

        Raises:
            UserError: the backbone, or its whole family, has no patch features.
        """
        raise UserError(
            f"the image tower of backbone '{self.source['name']}' has no features of its patches: use a vision "
            "transformer with a class token, such as ViT-B-16, or a ResNet of CLIP"
        )

    @cached_property
    def image_of_all_tokens(self) -> Tower:
        """Return the tower of `build_tower_of_all_tokens`, built once; raises the same errors."""
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
        """Return the image tower."""
        return self.towers["image"]

    @property
    def text(self) -> Tower:
        """Return the text tower."""
        return self.towers["text"]

    @property
    def image_width(self) -> int | None:
        """Return the number of channels of the image tower; None if its architecture isn't known."""
        return self.widths.get("image")

    @property
    def text_width(self) -> int | None:
        """Return the number of channels of the text tower; None if its architecture isn't known."""
        return self.widths.get("text")

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self:
        """Move the weights to a device and a number format; nothing else changes either."""
        self.model.to(device=device, dtype=dtype)
        return self

    @property
    def image_size(self) -> tuple[int, int]:
        """Return the height and width of the input images, in pixels."""
        sides = self.preprocess["size"]
        return (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        found: torch.device = next(self.model.parameters()).device
        return found

    @property
    def dtype(self) -> torch.dtype:
        """Return the number format of the weights."""
        found: torch.dtype = next(self.model.parameters()).dtype
        return found

    def weights(self, tower: str) -> dict[str, dict[str, nn.Parameter]]:
        """Return the weights of each stage of a tower, by the stage's point and by the weight's name in the model."""
        names = {id(weight): name for name, weight in self.model.named_parameters()}
        own = self.tower(tower)
        read = {point: own.parameters(point) for point in own.stages}
        return {point: {names[id(weight)]: weight for weight in weights} for point, weights in read.items()}

    def towers_with(self, weights: Mapping[str, nn.Parameter]) -> dict[str, Tower]:
        """Return the towers, by name, with the weights of these names replaced; all other weights are shared."""
        placed = {id(weight): weights.get(name, weight) for name, weight in self.model.named_parameters()}
        shared = {id(buffer): buffer for buffer in self.model.buffers()}
        return self.build_towers(copy.deepcopy(self.model, {**placed, **shared}))

    @property
    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer of prompts.

        Raises:
            UserError: the model's tokenizer could not be loaded.
        """
        if isinstance(self._tokenizer, str):
            raise UserError(self._tokenizer)
        return self._tokenizer

    def tokenize(self, prompts: Sequence[Sequence[Prompt]]) -> Rows:
        """Tokenize the prompts of C classes, each with the same number of templates, as input of the text tower.

        Raises:
            UserError: a prompt is longer than the text tower's context, or the tokenizer could not be loaded.
        """
        tokenizer = self.tokenizer
        shape = len(prompts), len(prompts[0])
        return self.arrange(self._sequences(prompts), shape, tokenizer.placeholder, tokenizer.pad)

    def tokenize_in_chunks(
        self, prompts: Sequence[Sequence[Prompt]], max_rows: int | None = None, unshared_prefix: bool = False
    ) -> Prompts:
        """Tokenize the prompts of C classes in chunks of at most `max_rows` rows; raises the errors of `tokenize`.

        Templates with different starts are laid out separately, since all classes share the start of each. With
        `unshared_prefix`, no prompt shares rows with another.
        """
        tokenizer = self.tokenizer

        def arrange(sequences: Sequence[Sequence[Token]], shape: tuple[int, int], first_class: int) -> Rows:
            return self.arrange(sequences, shape, tokenizer.placeholder, tokenizer.pad, first_class, unshared_prefix)

        def count_rows(sequences: Sequence[Sequence[Token]]) -> int:
            return self._layout.count_rows(sequences, unshared_prefix)

        shape = len(prompts), len(prompts[0])
        return in_chunks(self._sequences(prompts), shape, max_rows, arrange, count_rows)

    def text_features(self, prompts: Sequence[str | Sequence[Prompt]] | str) -> Tensor:
        """Encode prompts of C classes to frozen features `[C, templates, D]`; a text is one prompt of its class.

        Raises:
            UserError: they are no prompts, classes have different numbers of them, or as of `tokenize`.
        """
        with torch.no_grad():
            features: Tensor = self.tokenize_in_chunks(by_class(prompts), ROWS_AT_ONCE).run(self.text)
        return features

    def _sequences(self, prompts: Sequence[Sequence[Prompt]]) -> list[list[Token]]:
        """Return the token sequences of prompts, class by class."""
        tokenizer = self.tokenizer
        sequences = [tokenizer.sequence(prompt) for templates in prompts for prompt in templates]
        every = (prompt for templates in prompts for prompt in templates)
        self._warn_unknown(every, {token for sequence in sequences for token in sequence if isinstance(token, int)})
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
        """Lay out token sequences, ending in their end token, as this text tower requires.

        Args:
            sequences: classes * templates token sequences, class by class.
            shape: (classes, templates).
            placeholder: token id at the places of learned vectors.
            pad: token id that pads sequences, if the tower reads padded sequences.
            first_class: index of the first of these classes among all classes of the adaptation.
            unshared_prefix: whether the sequences do not share the rows of a common prefix (needed for dropout).
        """
        layout = self._layout.arrange(sequences, shape, placeholder, pad, first_class, unshared_prefix).to(self.device)
        return Rows(layout.ids, layout)

    def _warn_unknown(self, prompts: Iterable[Prompt], tokens: set[int]) -> None:
        """Warn of words with pieces that the pretraining lacks, of each word once."""
        known = self.known_tokens
        if known is None or not (unknown := tokens - known - self._told_tokens):
            return
        self._told_tokens |= unknown
        words = dict.fromkeys(word for prompt in prompts for word in find_words(prompt) if word not in self._told_words)
        new = [word for word in words if not known.issuperset(self.tokenizer.encode(word))]
        self._told_words.update(new)
        if new:
            shown = join_names([f"'{word}'" for word in new], SHOWN_WORDS)
            named = f"the backbone {self.source['name']}"
            text = f"{named} never saw these words in its pretraining, and can't read them: {shown}"
            warnings.warn(text, UserWarning, stacklevel=4)


def _fingerprint(model: Any, preprocess: dict[str, Any]) -> str:
    digest = hashlib.sha256(repr(sorted(preprocess.items())).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def find_words(prompt: Prompt) -> list[str]:
    """Return the words of a prompt's texts, without the punctuation around them."""
    texts = [prompt] if isinstance(prompt, str) else [piece for piece in prompt if isinstance(piece, str)]
    return re.findall(r"\w(?:[^\s]*\w)?", " ".join(texts))
