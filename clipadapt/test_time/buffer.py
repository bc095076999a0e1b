"""A buffer of learned tensors along a stream of test images."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.errors import UserError
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.base import TestTimeMethod
from clipadapt.test_time.copies import batched_parameters, rounding_anew
from clipadapt.test_time.episodic import Decay, Rate, Share, Tensors
from clipadapt.test_time.views import Count, averaged, entropy, least

OFFSETS = "offsets."


@dataclass(frozen=True)
class Adapted:
    """The result of adapting to one image of a stream.

    Attributes:
        logits: logits after the last step, `[C]`.
        restarted: index of the prompt that was reset before the image; -1 if there was none.
        gradients: gradients of all P prompts in the first step, `[P, ...]` by name; zero for those that aren't active.
        values: by name: what `PromptBuffer.choose` returned; the views `selected`, in order of increasing entropy; and
            the `objective` before the first step, a scalar.
    """

    logits: Tensor
    restarted: int
    gradients: Tensors
    values: Tensors


class PromptBuffer(TestTimeMethod):
    """DynaPrompt: a buffer of prompts along a stream of images (Xiao et al., ICLR 2025, arXiv:2501.16404, section 4).

    A prompt is an offset to the learned tensors, which starts at zero. For each image, the least recently used prompt
    is active, and with it prompts that are more confident and react more to augmentation; these, and the confident
    views, are chosen once for all steps. They are tuned together, with a new AdamW, to the mean over them of the
    entropy of the confident views' mean probability; the logits are the mean of theirs for the first view. When all
    prompts have been used, the least recently used one is reset before the next image. While offsets are equal, as at
    the start, rounding decides between them.

    Args:
        views: number of views of each image: the centre crop, then random crops; at least two.
        images: number of images that are encoded together; they are adapted to one after another.
        prompts: number of prompts.
        selection: share of the views that are used, those of lowest entropy.
        steps: number of optimiser steps for each image.
        lr: learning rate.
        weight_decay: decoupled weight decay; it shrinks the offsets of all prompts in every step.
        rule: how prompts join the least recently used one. "released": its number of candidates by margin is its rank
            by entropy, and the numbers of the candidates are used as ranks by entropy, as in the authors' code.
            "paper": all of lower entropy and larger margin than it.
    """

    adapts_to = "stream"

    def __init__(
        self,
        views: Annotated[int, Ge(2)] = 64,
        images: Count = 8,
        prompts: Count = 12,
        selection: Share = 0.1,
        steps: Count = 1,
        lr: Rate = 0.005,
        weight_decay: Decay = 0.01,
        rule: Literal["released", "paper"] = "released",
    ) -> None:
        super().__init__(views, images)
        self.prompts, self.selection, self.steps, self.rule = prompts, selection, steps, rule
        self.lr, self.weight_decay = lr, weight_decay
        self.reset()

    @property
    def texts_at_once(self) -> int:
        """The number of prompts, whose class embeddings are computed together."""
        return self.prompts

    def check(self, adaptation: Adaptation) -> None:
        """Check that an adaptation has tensors that there may be several of.

        Raises:
            UserError: it hasn't.
        """
        if not (adaptation.has_parameters and adaptation.capabilities.supports_batched_params):
            raise UserError(
                "a buffer of prompts needs an adaptation that learns a context or shifts of prototypes: take "
                "adaptation@method.adaptation=context, or another method.test_time"
            )

    def reset(self, length: int | None = None) -> None:
        """Empty the buffer, to start a new stream, whatever its length."""
        self.offsets: dict[str, Tensor] = {}
        self.order, self.used = [*range(self.prompts)], [False] * self.prompts

    def state_dict(self) -> dict[str, Tensor]:
        """Return the offsets of all prompts, their order, the least recently used first, and which were used."""
        offsets = {f"{OFFSETS}{name}": offset.clone() for name, offset in self.offsets.items()}
        return offsets | {"order": torch.tensor(self.order), "used": torch.tensor(self.used)}

    def load_state_dict(self, state: Tensors) -> None:
        """Load a state that `state_dict` returned, to continue its stream.

        Raises:
            UserError: the state has another number of prompts.
        """
        if (saved := len(state.get("order", ()))) != self.prompts:
            raise UserError(f"what was saved has {saved} prompts, and this one has {self.prompts}")
        named = {name.removeprefix(OFFSETS): x.clone() for name, x in state.items() if name.startswith(OFFSETS)}
        self.offsets, self.order, self.used = named, state["order"].tolist(), state["used"].tolist()

    def logits(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> Tensor:
        """Compute logits `[B, C]` of activations `[B, V, ...]` at the image cut, one image after another.

        Raises:
            UserError: as of `check`.
        """
        return torch.stack([self.adapt(classifier, views).logits for views in x])

    def adapt(self, classifier: Classifier, x: Tensor) -> Adapted:
        """Adapt to one image, given activations `[V, ...]` of its views; raises UserError as `check`."""
        self.check(classifier.adaptation)
        own = {name: value.detach() for name, value in classifier.adaptation.named_parameters()}
        if not self.offsets:
            self.offsets = {name: value.new_zeros(self.prompts, *value.shape) for name, value in own.items()}
        restarted = self._restart()
        optimizer = torch.optim.AdamW(self.offsets.values(), lr=self.lr, weight_decay=self.weight_decay)
        image = classifier.encode_image(x, classifier.image_cut).detach()
        with rounding_anew(x.device):
            values = self._choose(classifier, image, own)
            prompts, places = values["active"].unique(return_inverse=True)
            first: tuple[Tensor, Tensors] | None = None
            with batched_parameters(classifier.adaptation, len(prompts)) as tensors:
                for _ in range(self.steps):
                    self._place(tensors, own, prompts)
                    with torch.enable_grad():
                        logits = logits_of_prompts(classifier, image[values["selected"]])[places]
                        objective = entropy(averaged(logits)).mean()
                        gradients = self._set_gradients(objective, tensors, prompts)
                    first = first or (objective.detach(), gradients)
                    optimizer.step()
                self._place(tensors, own, prompts)
                with torch.no_grad():
                    logits = logits_of_prompts(classifier, image[:1])[places, 0].mean(dim=0)
        self._use(values["active"].tolist())
        assert first is not None, "there is at least one step"
        return Adapted(logits, restarted, first[1], {**values, "objective": first[0]})

    def _use(self, active: list[int]) -> None:
        """Make prompts the most recently used ones."""
        for number in active:
            self.order.remove(number)
            self.order.append(number)
            self.used[number] = True

    def _restart(self) -> int:
        """Reset the least recently used prompt if all were used; return its index, or -1."""
        if not all(self.used):
            return -1
        oldest = self.order[0]
        self.used[oldest] = False
        for offset in self.offsets.values():
            offset[oldest] = 0
        return oldest

    @torch.no_grad()
    def _place(self, tensors: Tensors, own: Tensors, prompts: Tensor) -> None:
        """Set tensors `[N, ...]` to those of N prompts, given their numbers `[N]`."""
        for name, tensor in tensors.items():
            tensor.copy_(own[name] + self.offsets[name][prompts])

    @torch.no_grad()
    def _choose(self, classifier: Classifier, image: Tensor, own: Tensors) -> dict[str, Tensor]:
        """Return what `choose` returns, and the views that are `selected` by the mean entropy of active prompts."""
        with batched_parameters(classifier.adaptation, self.prompts) as tensors:
            self._place(tensors, own, torch.arange(self.prompts, device=image.device))
            logits = logits_of_prompts(classifier, image)
        choice = self.choose(logits)
        return {**choice, "selected": least(entropy(logits[choice["active"]]).mean(dim=0), self.selection)}

    def _set_gradients(self, objective: Tensor, tensors: Tensors, prompts: Tensor) -> Tensors:
        """Set and return all offsets' gradients `[P, ...]`; tensors are those of N prompts with numbers `[N]`."""
        gradients = {name: torch.zeros_like(self.offsets[name]) for name in tensors}
        for (name, all_of_them), own in zip(
            gradients.items(), torch.autograd.grad(objective, [*tensors.values()]), strict=True
        ):
            all_of_them[prompts] = own
            self.offsets[name].grad = all_of_them
        return gradients

    def choose(self, logits: Tensor) -> dict[str, Tensor]:
        """Choose prompts, given logits `[P, V, C]`.

        Returns:
            By name, the mean `entropy [P]` of the views; the `margin [P]`, by which the first view's highest logit is
            above the mean of the other views' highest ones; and the `active` prompts, the least
            recently used one last; one may occur twice, and then counts twice.
        """
        highest, mean, start = logits.max(dim=-1).values, entropy(logits).mean(dim=-1), self.order[0]
        margin = highest[:, 0] - highest[:, 1:].mean(dim=-1)
        if self.rule == "paper":
            joining = ((mean < mean[start]) & (margin > margin[start])).nonzero().flatten().tolist()
        else:
            by_entropy, by_margin = (x.sort(descending=True, stable=True).indices.tolist() for x in (mean, margin))
            rank = by_entropy.index(start)
            below = by_entropy[min(rank + 1, self.prompts - 1) :]
            joining = [by_entropy[number] for number in sorted({*below} & {*by_margin[:rank]})]
        return {"entropy": mean, "margin": margin, "active": torch.tensor([*joining, start], device=logits.device)}


def logits_of_prompts(classifier: Classifier, image: Tensor) -> Tensor:
    """Compute logits `[P, V, C]` of image features `[V, D]` with the class embeddings of each prompt."""
    return torch.stack([classifier.logits(image, own) for own in classifier.class_embeddings()])
