"""What a record of adapters alone holds: they are seen on given activations, without any CLIP."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipadapt.adaptations.block_adapters import AdapterFamily

PARTS = {"phm_rule": "rule", "W": "weight", "W_left": "left", "W_right": "right", "b": "bias"}
PLACES = {"down_sampler": "down", "up_sampler": "up", "pre_layer_norm": "before", "post_layer_norm": "after"}
STEPS = 3


class Adapters:
    """Adapters of several tasks, which share what adapters of a family share."""

    def __init__(self, record: Any, settings: Any, device: str) -> None:
        self.record, self.device = record, device
        node = {key: value for key, value in settings["method"]["adaptation"].items() if key != "_target_"}
        family = AdapterFamily(**{key: node[key] for key in AdapterFamily.__init__.__annotations__ if key in node})
        width = record.meta["hyperparameters"]["width"]["value"]
        single = record.meta["hyperparameters"]["single_adapter"]["value"]
        made = [family.adapter(width) for _ in record.meta["tasks"]]
        each = made[:1] * len(made) if single else made
        self.tasks = nn.ModuleDict(dict(zip(record.meta["tasks"], each, strict=True)))
        self.tasks.to(device)
        self.learned = {name: self.find(name) for name in self.names()}
        assert {id(value) for value in self.learned.values()} == {id(value) for value in self.tasks.parameters()}
        with torch.no_grad():
            for name, parameter in self.learned.items():
                parameter.copy_(record.tensor(f"init/{name}", device))

    def names(self) -> list[str]:
        return [name.removeprefix("init/") for name in self.record.arrays if name.startswith("init/")]

    def find(self, name: str) -> nn.Parameter:
        """Our parameter of a name of the record; what all tasks share may have no task before it."""
        first = self.record.meta["tasks"][0]
        *task, layer, part = (name if "." in name else f"down_sampler.{name}").split(".")
        return self.tasks.get_parameter(".".join([*(task or [first]), PLACES[layer], PARTS.get(part, part)]))

    def outputs(self) -> dict[str, Tensor]:
        return {name: task(self.record.tensor(f"inputs/{name}", self.device)) for name, task in self.tasks.items()}

    def loss(self) -> Tensor:
        """The mean over tasks of the mean squared error."""
        wanted = {name: self.record.tensor(f"targets/{name}", self.device) for name in self.tasks}
        return torch.stack([functional.mse_loss(x, wanted[name]) for name, x in self.outputs().items()]).mean()

    @torch.enable_grad()
    def gradients(self) -> dict[str, Tensor]:
        return dict(zip(self.learned, torch.autograd.grad(self.loss(), [*self.learned.values()]), strict=True))

    def run(self) -> dict[str, Tensor]:
        """Everything that the record may hold, by name: at the start, and after steps of plain SGD."""
        down = self.tasks[self.record.meta["tasks"][0]].down
        found = {"loss": self.loss(), "down_matrix": getattr(down, "matrix", lambda: down.weight.T)().clone()}
        found |= {f"outputs/{name}": x for name, x in self.outputs().items()}
        found |= {f"grad/{name}": x for name, x in self.gradients().items()}
        losses = []
        for _ in range(STEPS):
            losses.append(self.loss().detach())
            with torch.no_grad():
                for name, gradient in self.gradients().items():
                    self.learned[name] -= self.record.meta["lr"] * gradient
        found |= {f"final/{name}": x.detach() for name, x in self.learned.items()}
        found |= {f"final/outputs/{name}": x for name, x in self.outputs().items()}
        return found | {"trajectory/loss": torch.stack(losses)}
