"""Parameter-efficient tuners of the peft library in transformer blocks; the only module that imports peft."""

import copy
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import peft
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING
from safetensors.torch import save
from torch import Tensor, nn

from clipadapt.adaptations.blocks import BlockReplacement, Which, names
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.errors import UserError, nearest
from clipadapt.interfaces import SupportView

PLAIN_LORA = {"peft_type": "LORA", "target_modules": ["q_proj", "k_proj", "v_proj"]}
LINEAR_IN = {
    "LORA": "lora_B",
    "ADALORA": "lora_E",
    "ADAMSS": "adamss_B",
    "BEFT": "beft_bias",
    "C3A": "c3a_kernel",
    "FOURIERFT": "fourierft_spectrum",
    "GRALORA": "gralora_B",
    "HIRA": "hira_B",
    "IA3": "ia3_l",
    "LILY": "lily_B",
    "LN_TUNING": "ln_tuning_layers",
    "LOHA": "hada_w2_b",
    "LOKR": "lokr_w1",
    "MISS": "miss_block",
    "PEANUT": "peanut_B",
    "RANDLORA": "randlora_lambda",
    "SHIRA": "shira_weight",
    "SUPERTUNING": "supertuning_values",
    "WAVEFT": "waveft_spectrum",
}
"""By tuner, the tensor in which the adapted weights are linear; its initial value leaves the weights unchanged."""

FOREIGN = {"adapters", "auto_mapping", "base_model_name_or_path", "megatron_config", "megatron_core", "revision"} | {
    "prompt_tuning_init_state_dict_path",
    "tokenizer_kwargs",
    "tokenizer_name_or_path",
}
"""Options of peft that import modules or load models; refused, since settings may come from an untrusted source."""


class Peft(BlockReplacement):
    """Any tuner of peft that can be injected into a module, such as LoRA (Hu et al., ICLR 2022, arXiv:2106.09685).

    The attention of the towers' blocks is made of four linear layers, so that modules have names such as
    `image.block.0.attn.q_proj` and `text.block.11.mlp.c_fc`. Blocks that contain a tuner replace the frozen blocks.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        towers: the towers whose blocks the tuner may adapt.
        config: `peft_type` and the tuner's own options; `target_modules` is a list of name suffixes, or a regular
            expression that matches whole names.

    Attributes:
        config: peft's configuration object.

    Raises:
        UserError: peft has no such tuner or option, peft refuses the options, a tower has no blocks, or a target
            matches no module.
    """

    def __init__(
        self, clip: DualEncoder, task: SupportView, towers: Which = "both", config: dict[str, Any] = PLAIN_LORA
    ) -> None:
        self.config = configuration(config)
        super().__init__(clip, task, towers)
        self.start = {name: self.get_parameter(name).detach().clone() for name in self._moved()}

    @classmethod
    def points_for(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the first block of each tower whose blocks the tuner may adapt."""
        return tuple(f"{tower}.block.0" for tower in names(settings.get("towers", "both")))

    def insert(self, towers: nn.ModuleDict) -> tuple[nn.Module, dict[str, Tensor]]:
        """Inject the tuner into blocks of towers; see `inject`."""
        return inject(self.config, towers)

    def interpolate(self, ratio: float) -> None:
        """Interpolate the weights with the frozen ones (WiSE-FT: Wortsman et al., CVPR 2022, arXiv:2109.01903).

        The interpolation is exact, since only tuners are accepted whose weights are linear in one of their tensors.

        Raises:
            UserError: the adapted weights aren't linear in one tensor of this tuner.
        """
        if not self.start:
            able = ", ".join(LINEAR_IN)
            raise UserError(
                f"{self.config.peft_type.value} with these options can't express weights between the frozen and the "
                f"learned ones: leave method.interpolation null, or use one of {able} with a plain start"
            )
        super().interpolate(ratio)

    def _moved(self) -> list[str]:
        """Return the names of the learned tensors in which the adapted weights are jointly linear, if there are any."""
        kind = self.config.peft_type.value
        prefix, part = PEFT_TYPE_TO_PREFIX_MAPPING[kind], LINEAR_IN.get(kind)
        variant = any(getattr(module, "lora_variant", None) for module in self.blocks.modules())
        if part is None or variant:
            return []
        learned = dict(self.named_parameters())
        own = [name for name in learned if part in name]
        plain = kind == "LN_TUNING" or all((learned[name] == learned[name].flatten()[0]).all() for name in own)
        return [name for name in learned if name in own or prefix not in name] if plain else []

    def export(self) -> dict[str, bytes]:
        """Return peft's files for the module that `split_towers` returns, in the folder `peft/`."""
        config = {**self.config.to_dict(), "inference_mode": True}
        state = peft.get_peft_model_state_dict(self.blocks, save_embedding_layers=False)
        tensors = {f"base_model.model.{name}": x.detach().cpu().clone().contiguous() for name, x in state.items()}
        text = json.dumps(config, indent=2, sort_keys=True, default=sorted)
        return {"peft/adapter_config.json": text.encode(), "peft/adapter_model.safetensors": save(tensors)}


def configuration(settings: Mapping[str, Any]) -> Any:
    """Return peft's configuration object for a tuner.

    Raises:
        UserError: peft has no such tuner or option, or refuses the options.
    """
    kind = settings.get("peft_type")
    if kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        known = sorted(each.value for each in PEFT_TYPE_TO_CONFIG_MAPPING)
        raise UserError(f"peft has no tuner '{kind}' for config.peft_type: {nearest(str(kind), known)}")
    fields = dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[kind])
    known = [field.name for field in fields if field.name not in FOREIGN]
    for key in settings:
        if key not in known:
            raise UserError(f"peft's {kind} has no option config.{key}: {nearest(key, known)}")
    try:
        config: Any = peft.get_peft_config(dict(settings))
    except Exception as error:  # tuners raise errors of different types
        raise UserError(f"peft refuses these options of {kind}: {reason(error)}") from error
    if getattr(config, "random_seed", 0) is None:
        config.random_seed = 0  # random projections must be the same when the learned tensors are loaded again
    return config


def inject(config: Any, shared: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a copy of a module with a tuner in it, and by name its tensors that don't share the module's storage.

    The tuner receives copies of all weights, since some tuners write into them. Afterwards, weights that the tuner left
    unchanged share the module's storage again.

    Raises:
        UserError: peft refuses the module, or a target matches no module.
    """
    module = copy.deepcopy(shared)
    check_targets(getattr(config, "target_modules", None), [name for name, _ in module.named_modules()])
    pairs = list(zip(module.parameters(), shared.parameters(), strict=True))
    try:
        peft.inject_adapter_in_model(config, module)
    except Exception as error:  # tuners raise errors of different types
        raise UserError(f"peft refuses {config.peft_type.value}: {reason(error)}") from error
    frozen = set()
    for mine, theirs in pairs:
        if not mine.requires_grad and torch.equal(mine, theirs):
            mine.data = theirs.data
            frozen.add(id(mine))
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return module, {name: x for name, x in tensors.items() if id(x) not in frozen}


def check_targets(targets: Any, modules: Iterable[str]) -> None:
    """Check that every target, a name suffix or a regular expression of whole names, matches a module's name.

    Raises:
        UserError: a target matches no module, or is no valid regular expression.
    """
    matches = re.fullmatch if isinstance(targets, str) else lambda target, name: f".{name}".endswith(f".{target}")
    for target in [targets] if isinstance(targets, str) else targets or ():
        try:
            found = any(matches(target, name) for name in modules)
        except re.error as error:
            raise UserError(f"config.target_modules={target} is no regular expression: {error}") from error
        if not found and target != "all-linear":
            known = (name.partition(".block.")[2].partition(".")[2] for name in modules)
            raise UserError(
                f"no module is named as config.target_modules={target} has it: in each block, as image.block.0, there "
                f"are {', '.join(dict.fromkeys(filter(None, known)))}"
            )


def reason(error: Exception) -> str:
    """Return an error's message on one line; the name of its type if the message is empty."""
    return " ".join(str(error).split()) or type(error).__name__
