"""Backbones of open_clip, and the embedded one; the only module that uses open_clip and its names."""

import os
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any, Self

import torch
from annotated_types import Interval
from torch import Tensor, nn

from clipadapt.backbone import tiny
from clipadapt.backbone.attention import Block, attend_all
from clipadapt.backbone.checkpoint_files import as_plain_checkpoint, read_archive
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.network import hub, quiet
from clipadapt.backbone.text import PromptLayout
from clipadapt.backbone.text_tower import opaque_text_tower, text_transformer
from clipadapt.backbone.tokenizer import Tokenizer
from clipadapt.backbone.towers import ALL_TOKENS, Tower, convolutional_tower, opaque_image_tower, vision_transformer
from clipadapt.errors import WeightsError, nearest
from clipadapt.paths import LocalPath
from clipadapt.postponed import DYNAMO, postponed, postponed_function

# Each takes longer to import than open_clip, and only these methods need it.
NEED_TRANSFORMERS = {"open_clip.hf_model": "HFTextEncoder.__init__", "open_clip.coca_model": "CoCa.generate"}
NEED_TIMM = {"open_clip.timm_model": "TimmModel.__init__"}
with postponed("transformers", NEED_TRANSFORMERS), postponed("timm", NEED_TIMM), postponed_function(*DYNAMO):
    import open_clip
    from open_clip.factory import load_state_dict

EMBEDDED = "embedded"


class CLIP(DualEncoder):
    """Dual encoder of open_clip.

    Args:
        model: an open_clip model; it is frozen and put in evaluation mode.
        tokenizer: open_clip's tokenizer of the model; or, as a text, the reason why there is none.
        source: `name`, `pretrained` and `seed`; recorded with every run.
        known_tokens: ids of the tokens that occur in the pretraining data; None if all tokens may be assumed to.
    """

    target = "clipadapt.backbone.open_clip.load"

    def __init__(
        self, model: Any, tokenizer: Any, source: dict[str, Any], known_tokens: frozenset[int] | None = None
    ) -> None:
        preprocess = open_clip.model.get_model_preprocess_cfg(model)
        settings = open_clip.transform.PreprocessCfg(**preprocess)
        layout, bias = _layout(model), getattr(model, "logit_bias", None)
        super().__init__(
            model,
            source,
            scale=float(model.logit_scale.detach().exp()),
            logit_bias=None if bias is None else float(bias.detach()),
            preprocess=preprocess,
            transform=open_clip.transform.image_transform_v2(settings, is_train=False),
            tokenizer=tokenizer if isinstance(tokenizer, str) else splicer(tokenizer, layout.context_length),
            layout=layout,
            width=_joint_width(model),
            widths={"image": _image_width(model.visual), "text": _text_width(model)},
            known_tokens=known_tokens,
        )

    @property
    def hub_id(self) -> str | None:
        """Return the repository of the weights on the Hugging Face hub; None if they have none."""
        tag = self.source.get("pretrained")
        found = open_clip.get_pretrained_cfg(self.source["name"], tag) if tag else {}
        return found.get("hf_hub", "").rstrip("/") or None

    @classmethod
    def load(cls, name: str, pretrained: str | None, seed: int = 0, image_size: int | None = None) -> Self:
        """Load a backbone on the CPU in float32.

        Args:
            name: an open_clip model name, or "tiny", the backbone that ships with the package.
            pretrained: a tag of open_clip, a checkpoint file, "embedded" for tiny, or None for random weights.
            seed: seed of the random weights.
            image_size: side of the images in pixels, to which positional embeddings are interpolated; None for the
                model's own.

        Raises:
            WeightsError: unknown name or tag, a missing file, weights that can't be fetched, or a model that can't have
                this image size.
        """
        source = {"name": name, "pretrained": pretrained, "seed": seed, "image_size": image_size}
        with torch.random.fork_rng(devices=[]), quiet(), hub() as offline:
            torch.manual_seed(seed)
            if name == "tiny":
                return cls._load_tiny(pretrained, source)
            _check_name(name, pretrained)
            model = _create(name, pretrained, image_size)
            _check_has_patches(model.visual, name, image_size)
            return cls(model, _find_tokenizer(name, offline), source)

    @classmethod
    def _load_tiny(cls, pretrained: str | None, source: dict[str, Any]) -> Self:
        if pretrained not in (EMBEDDED, None) and not os.path.isfile(pretrained):
            raise WeightsError(
                f"backbone 'tiny' has no weights '{pretrained}'; use '{EMBEDDED}', a checkpoint file or null"
            )
        weights = tiny.weights() if pretrained == EMBEDDED else None
        try:
            if pretrained not in (EMBEDDED, None):
                weights = read_archive(pretrained) or load_state_dict(pretrained)
            model = build(tiny.config(), weights, source["image_size"])
        except Exception as error:  # a file that is no checkpoint may raise anything
            raise _unloadable("tiny", pretrained, error) from error
        known = tiny.known_tokens() if pretrained == EMBEDDED else None
        return cls(model, open_clip.SimpleTokenizer(), source, known)

    def another(self, **settings: Any) -> Self:
        """Load another model of open_clip, with these settings in place of this backbone's."""
        return type(self).load(**{**self.settings, **settings})

    def build_towers(self, model: Any) -> dict[str, Tower]:
        """Return both towers, with all their points if open_clip's architecture is known."""
        return {"image": image_tower(model), "text": text_tower(model)}

    def build_tower_of_all_tokens(self) -> Tower:
        """Return the image tower with features `[..., 1 + P, D]`: the pooled one, then those of P patches.

        Raises:
            UserError: the tower isn't pooled at a class token, or its architecture isn't known.
        """
        visual = self.model.visual
        if _is_resnet(visual) or (_is_vision_transformer(visual) and _reads_class_token(visual)):
            return image_tower(self.model, all_tokens=True)
        return super().build_tower_of_all_tokens()


def load(
    name: str,
    pretrained: LocalPath | None,
    seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0,
    image_size: Annotated[int, Interval(ge=16, le=4096)] | None = None,
) -> CLIP:
    """Load a backbone of open_clip, or the embedded one; arguments and errors as of `CLIP.load`."""
    return CLIP.load(name, pretrained, seed, image_size)


def build(config: dict[str, Any], weights: dict[str, Tensor] | None, image_size: int | None = None) -> Any:
    """Build an open_clip model from a model config and weights.

    Args:
        config: the model config.
        weights: of the model; None draws them by torch's generator.
        image_size: as of `CLIP.load`.
    """
    vision = config["vision_cfg"] | ({} if image_size is None else {"image_size": image_size})
    model = open_clip.CLIP(**{**config, "vision_cfg": vision})
    if weights is not None:
        open_clip.model.resize_pos_embed(weights, model)  # in place; nothing to do at the size of the weights
        model.load_state_dict(weights)
    size = model.visual.image_size
    preprocess = open_clip.transform.PreprocessCfg(size=size)
    open_clip.model.set_model_preprocess_cfg(model, vars(preprocess))
    return model


def pretrained_tags(name: str, others: Iterable[str] = ("tiny",)) -> list[str]:
    """Return the pretrained tags of a model of open_clip; none of a model at an address.

    Args:
        name: its name.
        others: names of further backbones, for the message.

    Raises:
        WeightsError: there is no such model.
    """
    models = open_clip.list_models()
    if not isinstance(name, str) or (":" not in name and name not in models):
        raise WeightsError(f"there is no backbone '{name}': {nearest(name, {*others, *models})}")
    tags: list[str] = open_clip.list_pretrained_tags_by_model(name)
    return tags


def _check_name(name: str, pretrained: str | None) -> None:
    tags = pretrained_tags(name)
    if pretrained is None or pretrained in tags or os.path.isfile(pretrained):
        return
    advice = nearest(pretrained, [*tags, "null"])
    raise WeightsError(f"backbone '{name}' has no pretrained weights '{pretrained}', nor is that a file; {advice}")


def _create(name: str, pretrained: str | None, image_size: int | None) -> Any:
    try:
        with as_plain_checkpoint(pretrained) as (readable, of_openai):
            if not of_openai:
                _note_activation(name, pretrained)
            return open_clip.create_model(
                name,
                pretrained=readable,
                pretrained_text=False,
                require_pretrained=pretrained is not None,
                force_image_size=image_size,
                **({"force_quick_gelu": True} if of_openai else {}),
            )
    except Exception as error:  # a file that is no checkpoint may raise anything
        raise _unloadable(name, pretrained, error) from error


def _note_activation(name: str, pretrained: str | None) -> None:
    """Warn that a checkpoint file doesn't say whether its model has GELU or QuickGELU, if there are models of both."""
    twin = f"{name}-quickgelu"
    if pretrained is not None and os.path.isfile(pretrained) and twin in open_clip.list_models():
        warnings.warn(
            f"the file {pretrained} doesn't say which activation it was trained with, and '{name}' has GELU: weights "
            f"with QuickGELU, such as OpenAI's, DFN's and MetaCLIP's, need backbone.name={twin}",
            stacklevel=5,
        )


def _check_has_patches(visual: Any, name: str, image_size: int | None) -> None:
    positions = getattr(getattr(visual, "attnpool", visual), "positional_embedding", None)
    if positions is not None and positions.shape[-2] < 2:  # one of them is the class token's, or the mean's
        raise WeightsError(f"backbone.image_size={image_size} is smaller than one patch of '{name}': take a larger one")


def _unloadable(name: str, pretrained: str | None, error: Exception) -> WeightsError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(":")
    advice = (
        "that file is no checkpoint of this backbone"
        if pretrained is not None and os.path.isfile(pretrained)
        else "connect to the network once, give a checkpoint file in their place, or take the backbone tiny"
    )
    return WeightsError(f"the weights '{pretrained}' of backbone '{name}' could not be loaded ({reason}); {advice}")


def _find_tokenizer(name: str, offline: bool) -> Any:
    """Return open_clip's tokenizer of a model; or, as a text, the reason why there is none."""
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


def splicer(tokenizer: Any, length: int) -> Tokenizer:
    """Wrap open_clip's tokenizer, byte-pair or Hugging Face, as a tokenizer of prompts of at most `length` tokens."""
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is None:
        start, end = [tokenizer.sot_token_id], [tokenizer.eot_token_id]
        return Tokenizer(length, tokenizer.encode, tokenizer.decode, start, end)
    return Tokenizer(
        length,
        encode=lambda text: inner.encode(tokenizer.clean_fn(text), add_special_tokens=False),
        decode=inner.decode,
        start=[] if inner.bos_token_id is None else [inner.bos_token_id],
        end=[] if inner.eos_token_id is None else [inner.eos_token_id],
        pad=inner.pad_token_id,
    )


def _block(block: Any) -> Block | None:
    """Return a `Block` that shares the parts of open_clip's block; None if open_clip's block has other parts."""
    parts = all(hasattr(block, part) for part in ("ln_1", "ls_1", "ln_2", "ls_2", "mlp"))
    if not parts or hasattr(block, "ln_1_kv") or not isinstance(getattr(block, "attn", None), nn.MultiheadAttention):
        return None
    return Block(block.ln_1, block.attn, block.ln_2, block.mlp, block.ls_1, block.ls_2)


def _blocks(transformer: Any) -> list[Block] | None:
    """Return the blocks of a transformer; None if one of them isn't a known kind of block."""
    blocks = [_block(block) for block in getattr(transformer, "resblocks", [])]
    known = [block for block in blocks if block is not None]
    return known if known and len(known) == len(blocks) else None


def image_tower(model: Any, all_tokens: bool = False) -> Tower:
    """Return a model's image tower.

    Args:
        model: an open_clip model.
        all_tokens: whether features are `[..., 1 + P, D]`: the pooled one, then each patch's, projected the same way.
    """
    visual = model.visual
    if _is_vision_transformer(visual):
        return _vision_transformer(visual, all_tokens)
    if _is_resnet(visual):
        return _resnet(visual, all_tokens)
    return opaque_image_tower(
        lambda pixels: model.encode_image(pixels.to(model.logit_scale.dtype), normalize=False), visual
    )


def _is_vision_transformer(visual: Any) -> bool:
    parts = ("conv1", "class_embedding", "ln_pre", "transformer", "_pool", "proj")
    return all(hasattr(visual, part) for part in parts) and _blocks(visual.transformer) is not None


def _is_resnet(visual: Any) -> bool:
    return all(hasattr(visual, part) for part in ("stem", "layer1", "layer4", "attnpool"))


def _reads_class_token(visual: Any) -> bool:
    """Return whether a vision transformer is pooled at its class token."""
    return visual.pool_type == "tok" and visual.attn_pool is None


def _vision_transformer(visual: Any, all_tokens: bool) -> Tower:
    def embed(pixels: Tensor) -> Tensor:
        x = visual.conv1(pixels.to(visual.conv1.weight.dtype)).flatten(2).transpose(1, 2)
        first = visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        return torch.cat([first, x], dim=1) + visual.positional_embedding.to(x.dtype)

    def read(tokens: Tensor) -> Tensor:
        pooled = visual.ln_post(tokens) if all_tokens else visual._pool(tokens)[0]
        return pooled if visual.proj is None else pooled @ visual.proj

    return vision_transformer(
        embed,
        lambda x: visual.ln_pre(x),
        _blocks(visual.transformer) or [],
        read,
        {
            "pixels": (visual.conv1, visual.class_embedding, visual.positional_embedding),
            "patches": (visual.ln_pre,),
            "tokens": (visual.ln_post, visual.attn_pool, getattr(visual, "attn_pool_contrastive", None), visual.proj),
        },
        at_class_token=_reads_class_token(visual) and not all_tokens,
        name=ALL_TOKENS if all_tokens else "image",
    )


def _resnet(visual: Any, all_tokens: bool) -> Tower:
    return convolutional_tower(
        lambda x: visual.stem(x.to(visual.conv1.weight.dtype)),
        [visual.layer1, visual.layer2, visual.layer3, visual.layer4],
        _attend_everywhere(visual.attnpool) if all_tokens else visual.attnpool,
        {
            "pixels": (visual.conv1, visual.bn1, visual.conv2, visual.bn2, visual.conv3, visual.bn3),
            "tokens": (visual.attnpool,),
        },
        name=ALL_TOKENS if all_tokens else "image",
    )


def _attend_everywhere(pool: Any) -> Callable[[Tensor], Tensor]:
    """Return an attention pool, `[B, W, height, width]` to `[B, 1 + P, D]`, queried at the mean and all positions."""

    def run(x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + pool.positional_embedding.to(x.dtype)
        layers = pool.q_proj, pool.k_proj, pool.v_proj
        query, key, value = (layer(x).unflatten(-1, (pool.num_heads, -1)) for layer in layers)
        return pool.c_proj(attend_all(query, key, value).flatten(-2))

    return run


def _text_module(model: Any) -> Any:
    """Return the module with a model's text tower: its `text`, or the model itself."""
    return getattr(model, "text", model)


def _text_blocks(model: Any) -> list[Block] | None:
    """Return the blocks of a text tower; None if its architecture isn't known."""
    text = _text_module(model)
    parts = (getattr(text, part, None) for part in ("token_embedding", "positional_embedding", "ln_final"))
    return _blocks(getattr(text, "transformer", None)) if all(part is not None for part in parts) else None


def text_tower(model: Any) -> Tower:
    """Return a model's text tower."""
    text, blocks = _text_module(model), _text_blocks(model)
    if blocks is None:
        own = text if text is not model else None
        return opaque_text_tower(lambda ids: model.encode_text(ids, normalize=False), own)
    return text_transformer(
        text.token_embedding,
        text.positional_embedding,
        blocks,
        text.ln_final,
        getattr(text, "text_projection", None),
        getattr(text, "cls_emb", None),
    )


def _layout(model: Any) -> PromptLayout:
    """Return the layout of a model's prompts: packed if its text tower is causal and pooled at the end token."""
    text, known = _text_module(model), _text_blocks(model) is not None
    pool = getattr(text, "text_pool_type", getattr(text, "pool_type", "argmax"))
    causal = getattr(text, "attn_mask", None) is not None
    class_token = known and getattr(text, "cls_emb", None) is not None
    return PromptLayout(
        getattr(text, "context_length", 77),
        known and causal and not class_token and pool in ("argmax", "eos"),
        pool,
        class_token,
        partial(_mask, text, class_token),
    )


def _mask(text: Any, class_token: bool, ids: Tensor) -> Tensor | None:
    """Return the attention mask of padded ids `[N, length]`, as open_clip builds it; None for full attention."""
    mask = getattr(text, "attn_mask", None)
    visible = None if mask is None else mask.cpu() == 0
    if not class_token and not getattr(text, "use_pad_mask", False):
        return visible
    additive = text._build_additive_mask(ids, ids.shape[1] + class_token, torch.float32)
    unpadded = additive.unflatten(0, (len(ids), -1))[:, :1] == 0
    return unpadded if visible is None else unpadded & visible


def _image_width(visual: Any) -> int | None:
    return visual.conv1.out_channels if _is_vision_transformer(visual) else None


def _text_width(model: Any) -> int | None:
    return _text_module(model).positional_embedding.shape[-1] if _text_blocks(model) else None


def _joint_width(model: Any) -> int | None:
    """Return the channels of the joint space: those of the text projection, or else the image tower's output width."""
    projection = getattr(_text_module(model), "text_projection", None)
    if isinstance(projection, nn.Linear):
        return projection.out_features
    return projection.shape[-1] if isinstance(projection, Tensor) else getattr(model.visual, "output_dim", None)
