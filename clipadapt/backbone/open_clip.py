"""The frozen backbone: any CLIP that open_clip knows, as two towers. The only file that knows open_clip's insides."""

import copy
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import open_clip
import torch
from open_clip.factory import load_state_dict
from torch import Tensor, nn

from clipadapt.backbone import tiny, towers
from clipadapt.backbone.network import hub, quiet
from clipadapt.backbone.prompts import Prompts, in_chunks
from clipadapt.backbone.rows import Prompt, Rows, Token
from clipadapt.backbone.text import TextParts
from clipadapt.backbone.tokenizer import Tokenizer
from clipadapt.errors import UserError, WeightsError, nearest

EMBEDDED = "embedded"
ROWS_AT_ONCE = 2**16
"""Rows of hand-written prompts that are encoded at once: about 2 GB for ViT-B/16's text tower."""


class CLIP:
    """A frozen dual encoder.

    Args:
        model: an open_clip model; it is frozen and put in evaluation mode.
        tokenizer: open_clip's tokenizer of the model; or, as a text, why there is none.
        source: how to load the model again; recorded with every run.
        known_tokens: ids of the tokens that pretraining saw, None where it may be taken to have seen all.

    Attributes:
        image, text: the two `Tower`s.
        scale: the factor on cosine similarities, exp of CLIP's logit scale.
        image_width, text_width, width: channels of the image tower, of the text tower and of the joint space; None
            where the architecture isn't known.
        parameters: number of weights.
        preprocess: size, mean, std and interpolation of the images it reads.
        transform: PIL image to pixels `[3, height, width]`, centre crop.
        fingerprint: hash of all weights and of the preprocessing.
    """

    def __init__(
        self, model: Any, tokenizer: Any, source: dict[str, Any], known_tokens: frozenset[int] | None = None
    ) -> None:
        self.model = model.requires_grad_(False).eval()
        self.source = source
        self.known_tokens = known_tokens
        self.scale = float(model.logit_scale.detach().exp())
        self._text = TextParts(model)
        self._tokenizer = tokenizer
        self.image = _image_tower(model)
        self.text = self._text.tower(model)
        self.image_width = model.visual.conv1.out_channels if "patches" in self.image.points else None
        self.text_width = self._text.text_width
        self.width = self._text.joint_width or getattr(model.visual, "output_dim", None)
        self.preprocess = open_clip.model.get_model_preprocess_cfg(model)
        settings = open_clip.transform.PreprocessCfg(**self.preprocess)
        self.transform = open_clip.transform.image_transform_v2(settings, is_train=False)
        self.parameters = sum(weight.numel() for weight in model.parameters())
        self.fingerprint = _fingerprint(model, self.preprocess)

    @classmethod
    def load(cls, name: str, pretrained: str | None, seed: int = 0) -> Self:
        """Load a backbone on the CPU in float32.

        Args:
            name: an open_clip model name, or "tiny", the one that ships with the package.
            pretrained: a tag of open_clip, a checkpoint file, "embedded" for tiny, or None for random weights.
            seed: draws the random weights.

        Raises:
            WeightsError: unknown name or tag, a missing file, or weights that can't be fetched.
        """
        source = {"name": name, "pretrained": pretrained, "seed": seed}
        with torch.random.fork_rng(devices=[]), quiet(), hub() as offline:
            torch.manual_seed(seed)
            if name == "tiny":
                return cls._load_tiny(pretrained, source)
            _check_name(name, pretrained)
            return cls(_create(name, pretrained), _find_tokenizer(name, offline), source)

    @classmethod
    def _load_tiny(cls, pretrained: str | None, source: dict[str, Any]) -> Self:
        if pretrained not in (EMBEDDED, None) and not Path(pretrained).is_file():
            raise UserError(
                f"backbone 'tiny' has no weights '{pretrained}'; use '{EMBEDDED}', a checkpoint file or null"
            )
        weights = tiny.weights() if pretrained == EMBEDDED else None
        try:
            if pretrained not in (EMBEDDED, None):
                weights = load_state_dict(pretrained)
            model = build(tiny.config(), weights)
        except Exception as error:  # a file that is no checkpoint may raise anything
            raise _unloadable("tiny", pretrained, error) from error
        known = tiny.known_tokens() if pretrained == EMBEDDED else None
        return cls(model, open_clip.SimpleTokenizer(), source, known)

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self:
        """Move the weights; the only way the backbone's device or number format changes."""
        self.model.to(device=device, dtype=dtype)
        return self

    @cached_property
    def image_of_all_tokens(self) -> towers.Tower:
        """The image tower with features `[..., 1 + P, D]`: the pooled one, then those of P patches.

        Raises:
            UserError: the tower doesn't pool at a class token, or its architecture isn't known.
        """
        visual = self.model.visual
        if towers.is_modified_resnet(visual):
            return towers.modified_resnet(visual, all_tokens=True)
        if towers.is_vision_transformer(visual) and towers.reads_class_token(visual):
            return towers.vision_transformer(visual, all_tokens=True)
        raise UserError(
            f"the image tower of backbone '{self.source['name']}' has no features of its patches: use a vision "
            "transformer with a class token, such as ViT-B-16, or a ResNet of CLIP"
        )

    def tower(self, name: str) -> towers.Tower:
        """The tower of a name, "image" or "text"."""
        return self.image if name == "image" else self.text

    def weights(self, tower: str) -> dict[str, dict[str, nn.Parameter]]:
        """The weights that each stage of a tower reads, by its point, and by their names in the model."""
        names = {id(weight): name for name, weight in self.model.named_parameters()}
        own = self.tower(tower)
        read = {point: own.parameters(point) for point in own.stages}
        return {point: {names[id(weight)]: weight for weight in weights} for point, weights in read.items()}

    def towers_with(self, weights: Mapping[str, nn.Parameter]) -> dict[str, towers.Tower]:
        """Both towers, by name, with other weights in the places of those of their names; the rest is shared."""
        placed = {id(weight): weights.get(name, weight) for name, weight in self.model.named_parameters()}
        shared = {id(buffer): buffer for buffer in self.model.buffers()}
        model = copy.deepcopy(self.model, {**placed, **shared})
        return {"image": _image_tower(model), "text": TextParts(model).tower(model)}

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels of the images that it reads."""
        sides = self.preprocess["size"]
        return (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.logit_scale.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return self.model.logit_scale.dtype

    @property
    def tokenizer(self) -> Tokenizer:
        """Splices prompts into token sequences.

        Raises:
            UserError: the model's tokenizer could not be had.
        """
        if isinstance(self._tokenizer, str):
            raise UserError(self._tokenizer)
        return Tokenizer(self._tokenizer, self._text.context_length)

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
            return self._text.count_rows(sequences, unshared_prefix)

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
        layout = self._text.arrange(sequences, shape, placeholder, pad, first_class, unshared_prefix).to(self.device)
        return Rows(layout.ids, layout)

    def _warn_unknown(self, tokens: set[int]) -> None:
        unknown = sorted(tokens - self.known_tokens) if self.known_tokens is not None else []
        if not unknown:
            return
        words = ", ".join(f"'{self.tokenizer.decode([token]).strip()}'" for token in unknown)
        text = f"the backbone {self.source['name']} never saw these words in its pretraining: {words}"
        warnings.warn(text, UserWarning, stacklevel=4)


def build(config: dict[str, Any], weights: dict[str, Tensor] | None) -> Any:
    """An open_clip model from a model config and weights; random ones from torch's generator where None."""
    model = open_clip.CLIP(**config)
    if weights is not None:
        model.load_state_dict(weights)
    size = model.visual.image_size
    preprocess = open_clip.transform.PreprocessCfg(size=size)
    open_clip.model.set_model_preprocess_cfg(model, vars(preprocess))
    return model


def _check_name(name: str, pretrained: str | None) -> None:
    models = open_clip.list_models()
    if ":" not in name and name not in models:
        raise WeightsError(f"there is no backbone '{name}'; {nearest(name, ['tiny', *models])}")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained is None or pretrained in tags or Path(pretrained).is_file():
        return
    advice = nearest(pretrained, [*tags, "null"])
    raise WeightsError(f"backbone '{name}' has no pretrained weights '{pretrained}', nor is that a file; {advice}")


def _create(name: str, pretrained: str | None) -> Any:
    try:
        return open_clip.create_model(
            name, pretrained=pretrained, pretrained_text=False, require_pretrained=pretrained is not None
        )
    except Exception as error:  # a file that is no checkpoint may raise anything
        raise _unloadable(name, pretrained, error) from error


def _unloadable(name: str, pretrained: str | None, error: Exception) -> WeightsError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(":")
    advice = (
        "that file is no checkpoint of this backbone"
        if pretrained is not None and Path(pretrained).is_file()
        else "connect to the network once, give a checkpoint file in their place, or take the backbone tiny"
    )
    return WeightsError(f"the weights '{pretrained}' of backbone '{name}' could not be loaded ({reason}); {advice}")


def _find_tokenizer(name: str, offline: bool) -> Any:
    hugging_face = "hf_tokenizer_name" in (open_clip.get_model_config(name) or {}).get("text_cfg", {})
    options = {"local_files_only": True} if offline and hugging_face else {}
    try:
        return open_clip.get_tokenizer(name, **options)
    except (OSError, ImportError) as error:
        reason = str(error).strip().splitlines()[0].split(". ")[0]
        return (
            f"the tokenizer of backbone '{name}' could not be loaded ({reason}); it comes from the Hugging Face hub: "
            "install transformers and connect to the network once"
        )


def _image_tower(model: Any) -> towers.Tower:
    visual = model.visual
    if towers.is_vision_transformer(visual):
        return towers.vision_transformer(visual)
    if towers.is_modified_resnet(visual):
        return towers.modified_resnet(visual)
    return towers.opaque_image_tower(
        lambda pixels: model.encode_image(pixels.to(model.logit_scale.dtype), normalize=False), visual
    )


def _fingerprint(model: Any, preprocess: dict[str, Any]) -> str:
    digest = hashlib.sha256(repr(sorted(preprocess.items())).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
