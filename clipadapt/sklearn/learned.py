"""What a fitted estimator pickles: settings as YAML, a record as JSON, learned tensors as safetensors; no code."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from clipadapt.errors import InputError
from clipadapt.plain_yaml import dump_plain_yaml, parse_plain_yaml

PLACE = "a pickled estimator"


@dataclass(frozen=True)
class LearnedState:
    """What was learned, as it is pickled.

    Attributes:
        settings: of the run, with numbers as keys, which JSON doesn't have.
        record: further plain values.
        tensors: by name.
    """

    settings: dict[str, Any]
    record: dict[str, Any]
    tensors: dict[str, Tensor]

    def dump(self) -> dict[str, Any]:
        """Return texts and bytes."""
        here = {name: value.detach().cpu().contiguous() for name, value in self.tensors.items()}
        return {"settings": dump_plain_yaml(self.settings), "record": json.dumps(self.record), "tensors": save(here)}


def load_state(dumped: Mapping[str, Any]) -> LearnedState:
    """Return what `LearnedState.dump` wrote.

    Raises:
        UserError: it is damaged.
    """
    try:
        settings = parse_plain_yaml(dumped["settings"].encode(), PLACE)
        return LearnedState(settings, json.loads(dumped["record"]), load(dumped["tensors"]))
    except (KeyError, TypeError, AttributeError, ValueError, SafetensorError) as error:
        raise InputError(f"{PLACE} is damaged ({error}): fit it again, and pickle that") from error
