"""Small trained updates of frozen weights in transformer blocks; the only file that knows peft."""

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
"""The tensor of each tuner in which the weights are linear, and which starts where it changes nothing."""

FOREIGN = {"adapters", "auto_mapping", "base_model_name_or_path", "megatron_config", "megatron_core", "revision"} | {
    "prompt_tuning_init_state_dict_path",
    "tokenizer_kwargs",
    "tokenizer_name_or_path",
}
"""Options of peft that name modules to import, or models to load: settings may be somebody else's."""


class Peft(BlockReplacement):
    """Any of peft's tuners that can be put into a module, as LoRA (Hu et al., ICLR 2022, arXiv:2106.09685).

    The towers' blocks get an attention of four linear layers, so that modules are named as
    `image.block.0.attn.q_proj`, `text.block.11.mlp.c_fc`; blocks into which something was put replace the frozen ones.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        towers: whose blocks are offered.
        config: `peft_type` and the tuner's own options; `target_modules` names modules by their ends, or all of one
            name by a regular expression.

    Attributes:
        config: peft's own configuration.

    Raises:
        UserError: a tuner or an option that there isn't, what peft itself refuses, a tower without blocks, or targets
            that name nothing.
    """

    def __init__(
        self, clip: DualEncoder, task: SupportView, towers: Which = "both", config: dict[str, Any] = PLAIN_LORA
    ) -> None:
        self.config = configuration(config)
        super().__init__(clip, task, towers)
        self.start = {name: self.get_parameter(name).detach().clone() for name in self._moved()}

    @classmethod
    def points_for(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the first block of each tower whose blocks are offered."""
        return tuple(f"{tower}.block.0" for tower in names(settings.get("towers", "both")))

    def insert(self, towers: nn.ModuleDict) -> tuple[nn.Module, dict[str, Tensor]]:
        """Put the tuner into blocks of towers; see `inject`."""
        return inject(self.config, towers)

    def interpolate(self, ratio: float) -> None:
        """Move the weights towards the frozen ones (WiSE-FT: Wortsman et al., CVPR 2022, arXiv:2109.01903).

        Exact for tuners whose weights are linear in one of their tensors.

        Raises:
            UserError: this tuner's aren't.
        """
        if not self.start:
            able = ", ".join(LINEAR_IN)
            raise UserError(
                f"{self.config.peft_type.value} with these options can't express weights between the frozen and the "
                f"learned ones: leave method.interpolation null, or use one of {able} with a plain start"
            )
        super().interpolate(ratio)

    def _moved(self) -> list[str]:
        """Learned tensors in which, together, the weights are linear; none where there are no such."""
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
        """What was learned in peft's own format, in `peft/`; `split_towers` gives the module that it belongs to."""
        config = {**self.config.to_dict(), "inference_mode": True}
        state = peft.get_peft_model_state_dict(self.blocks, save_embedding_layers=False)
        tensors = {f"base_model.model.{name}": x.detach().cpu().clone().contiguous() for name, x in state.items()}
        text = json.dumps(config, indent=2, sort_keys=True, default=sorted)
        return {"peft/adapter_config.json": text.encode(), "peft/adapter_model.safetensors": save(tensors)}


def configuration(settings: Mapping[str, Any]) -> Any:
    """What peft calls the configuration of a tuner.

    Raises:
        UserError: a tuner or an option that there isn't, or what peft says of them.
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
    except Exception as error:  # every tuner has errors of its own
        raise UserError(f"peft refuses these options of {kind}: {reason(error)}") from error
    if getattr(config, "random_seed", 0) is None:
        config.random_seed = 0  # what it draws must be the same when what was learned is loaded
    return config


def inject(config: Any, shared: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    """A copy of a module with a tuner in it, and by name the tensors that aren't the module's own storage.

    The tuner gets copies of all weights, since some write into them; those that it left alone share again.

    Raises:
        UserError: what peft says, or targets that name nothing.
    """
    module = copy.deepcopy(shared)
    check_targets(getattr(config, "target_modules", None), [name for name, _ in module.named_modules()])
    pairs = list(zip(module.parameters(), shared.parameters(), strict=True))
    try:
        peft.inject_adapter_in_model(config, module)
    except Exception as error:  # every tuner has errors of its own
        raise UserError(f"peft refuses {config.peft_type.value}: {reason(error)}") from error
    frozen = set()
    for mine, theirs in pairs:
        if not mine.requires_grad and torch.equal(mine, theirs):
            mine.data = theirs.data
            frozen.add(id(mine))
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return module, {name: x for name, x in tensors.items() if id(x) not in frozen}


def check_targets(targets: Any, modules: Iterable[str]) -> None:
    """Raise a UserError where a target, the end of a name or a regular expression of whole names, is no module's."""
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
    """What peft says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
