"""What holds for every adaptation, checked for each YAML in conf/adaptation, some variants and two combinations."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from clipadapt import config
from clipadapt.adaptations import Adaptation, ZeroShot
from clipadapt.backbone.prompts import Prompts
from clipadapt.config.groups import ADAPTATION
from clipadapt.config.targets import locate
from clipadapt.engine.learner import Learner
from clipadapt.errors import UserError
from clipadapt.interfaces import LabelledFeatures
from clipadapt.objectives import CrossEntropy, DecoupledCrossEntropy
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.copies import batched_parameters
from clipadapt.test_time.tuning import PromptTuning
from tests.small import CLASS_NAMES, TASK, adaptation, close, golden, images

NAMES = [*config.options("adaptation")]
OF_CONTEXT = "method.adaptation."
CASES = {name: [name] for name in NAMES} | {
    "context, class-specific": ["context", f"{OF_CONTEXT}class_specific=true", f"{OF_CONTEXT}n_ctx=4"],
    "context, middle": ["context", f"{OF_CONTEXT}class_token_position=middle", f"{OF_CONTEXT}n_ctx=5"],
    "context, front": ["context", f"{OF_CONTEXT}class_token_position=front", f"{OF_CONTEXT}n_ctx=4"],
    "context, words": ["context", f"{OF_CONTEXT}words=a photo of a"],
    "zero_shot, one template": [
        "zero_shot",
        "method.adaptation.templates=['a {}']",
        "method.adaptation.keep_hyphens=false",
    ],
    "patch": ["patch", f"{OF_CONTEXT}offset=[0,0]"],  # elsewhere at every forward pass unless told
    "deep_context, random": ["deep_context", f"{OF_CONTEXT}words=null", f"{OF_CONTEXT}depth=all"],
    "transport_context, pooled": ["transport_context", f"{OF_CONTEXT}pooled=true"],
    "image_tokens + deep_context": ["image_tokens", "+adaptation@method.also.text=deep_context"],
    "refined_cache": ["refined_cache", f"{OF_CONTEXT}betas=10"],  # all 200 take long
    "divergence_cache": ["divergence_cache", f"{OF_CONTEXT}betas=5", f"{OF_CONTEXT}alphas=5", f"{OF_CONTEXT}beta=2"],
    "feature_cache, learned keys": ["feature_cache", f"{OF_CONTEXT}learn_keys=true"],
    "linear_head, random": ["linear_head", f"{OF_CONTEXT}start=random"],
    "full_finetuning, both": ["full_finetuning", f"{OF_CONTEXT}towers=both"],
    "bias_finetuning, text": ["bias_finetuning", f"{OF_CONTEXT}towers=text"],
    "prototype_shift, shared": ["prototype_shift", f"{OF_CONTEXT}per_class=false", f"{OF_CONTEXT}scale=true"],
    "lora, some": [
        "lora",
        f"{OF_CONTEXT}towers=text",
        f"{OF_CONTEXT}projections=[o]",
        f"{OF_CONTEXT}position=half-up",
    ],
    "lora, as in TTL": [
        "lora",
        f"{OF_CONTEXT}towers=image",
        f"{OF_CONTEXT}position=[1,3]",
        f"{OF_CONTEXT}scaling=rank",
        f"{OF_CONTEXT}start=xavier",
    ],
    "peft, IA3": [
        "peft",
        f"{OF_CONTEXT}config.peft_type=IA3",
        f"{OF_CONTEXT}config.target_modules=[k_proj,c_fc]",
        f"+{OF_CONTEXT}config.feedforward_modules=[c_fc]",
    ],
    "block_adapters, hypercomplex": [
        "block_adapters",
        f"{OF_CONTEXT}division=4",
        f"{OF_CONTEXT}factorized=true",
        f"{OF_CONTEXT}shared_rule=true",
        f"{OF_CONTEXT}share_up=true",
        f"{OF_CONTEXT}norm_before=true",
    ],
    "context + lora": ["context", f"{OF_CONTEXT}n_ctx=4", "+adaptation@method.also.weights=lora"],
    "context + padding": ["context", f"{OF_CONTEXT}n_ctx=4", "+adaptation@method.also.pixels=pixel_frame"],
    "feature_adapter, text": ["feature_adapter", f"{OF_CONTEXT}tower=text"],
    "context + feature_adapter": ["context", f"{OF_CONTEXT}n_ctx=4", "+adaptation@method.also.image=feature_adapter"],
}
COMBINED = {"linear_probe + image_tokens": ["linear_probe", "+adaptation@method.also.tokens=image_tokens"]}
"""Zero at its start, so that nothing before it has a gradient then."""
NEUTRAL = {  # settings that promise zero-shot logits
    "feature_adapter": ["feature_adapter", "method.adaptation.ratio=0"],
    "context": ["context", f"{OF_CONTEXT}words=a photo of a"],
    "prototype_shift": ["prototype_shift", f"{OF_CONTEXT}scale=true"],
    "lora": ["lora"],
    "peft": ["peft"],
    "full_finetuning": ["full_finetuning", f"{OF_CONTEXT}towers=both"],
    "bias_finetuning": ["bias_finetuning", f"{OF_CONTEXT}towers=both"],
    "projection_finetuning": ["projection_finetuning", f"{OF_CONTEXT}towers=both"],
    "norm_finetuning": ["norm_finetuning", f"{OF_CONTEXT}outside_blocks=true"],
}
ONE_EACH = ("zero_shot", "first_template", "context", "prototype_shift")
PER_IMAGE = [name for name in CASES if name.split(",")[0] in ONE_EACH]
"""Whose learned tensors may be others for each image."""
CLOSED_FORM = {
    "linear_probe": ["weight", "bias"],
    "text_blended_probe": ["weight", "bias", "alpha"],
    "feature_cache": ["alpha", "beta"],
    "feature_cache, learned keys": ["alpha", "beta"],
    "residual_cache": ["alpha", "beta"],
    "refined_cache": ["alpha", "beta", "gamma", "mask", "divergence"],
    "divergence_cache": ["alpha", "beta", "gamma", "affinity_range", "divergence_range"],
    "parameter_free_attention": ["text_weight", "image_weight"],
    "gaussian_classifier": ["weight", "bias", "alpha"],
    "inductive_label_propagation": ["images", "received"],
    "support_memory": ["keys", "labels"],
    "labelled_images": ["support", "support_labels", "validation", "validation_labels"],
    "linear_probe + image_tokens": ["parts.adaptation.weight", "parts.adaptation.bias"],
}
"""What is learned without gradients."""
KEEPING = {"labelled_images", "support_memory"}
"""What keeps images for a test-time method, and has zero-shot's logits."""
OF_ONE_TEMPLATE = {"context", "lora"}
ITERATING = ("transport_context", "visual_transport")
LABELS = torch.tensor([0, 3, 1, 4])
EACH = pytest.mark.parametrize("case", CASES)
COMPILED = ("zero_shot", "context")
"""Kinds that are compiled in the default run; `pytest -m slow` compiles the others."""


class Features:
    """What a fit without gradients may use, and which of it was asked for."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.scale = classifier.clip.scale
        self.asked: set[str] = set()

    @property
    def support(self) -> LabelledFeatures:
        self.asked.add("support")
        return TASK.support

    @property
    def validation(self) -> LabelledFeatures:
        self.asked.add("validation")
        image = torch.randn(1, 10, 64, generator=torch.Generator().manual_seed(3))
        found = LabelledFeatures(TASK.support.image[:1] + image, TASK.support.labels)
        if self.classifier.adaptation.capabilities.all_tokens:
            patches = torch.randn(1, 10, 16, 64, generator=torch.Generator().manual_seed(4))
            return replace(found, image=torch.cat([found.image.unsqueeze(2), patches], dim=2))
        return found

    @property
    def text(self) -> Tensor:
        self.asked.add("text")
        return self.classifier.class_embeddings()


@torch.no_grad()
def fitted(case: str) -> tuple[Classifier, set[str]]:
    """After the fit without gradients, and what that asked for."""
    classifier = classifier_of(case)
    features = Features(classifier)
    classifier.adaptation.fit_closed_form(features)
    return classifier, features.asked


def classifier_of(case: str, device: str = "cpu") -> Classifier:
    """In evaluation mode: in training some drop activations; where the last phase of a fit begins."""
    made = Classifier(golden(device), adaptation(*(CASES | COMBINED)[case], device=device), CLASS_NAMES).eval()
    for phase in range(made.adaptation.capabilities.phases):
        with torch.no_grad():
            made.adaptation.begin_phase(phase, Features(made))
    return made


def perturb(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator).to(parameter)


def gradients(classifier: Classifier, pixels: Tensor) -> dict[str, Tensor]:
    """Of a sum of the logits, also those of texts, with fixed weights, which no softmax can saturate."""
    learned = dict(classifier.adaptation.named_parameters())
    if not learned:
        return {}
    output = classifier.output(pixels)
    texts = output.text_logits()
    logits = output.logits if texts is None else torch.cat([output.logits, texts])
    weights = torch.linspace(-1, 1, logits.numel(), device=logits.device).view_as(logits).sin()
    return dict(zip(learned, torch.autograd.grad((logits * weights).sum(), [*learned.values()]), strict=True))


def parts(module: Adaptation) -> Iterator[Adaptation]:
    return (part for part in module.modules() if isinstance(part, Adaptation))


def values(x: Tensor | Prompts) -> Tensor:
    if isinstance(x, Tensor):
        return x
    return torch.cat([rows.values for part in x.chunks for rows in part])


@pytest.mark.parametrize("name", NAMES)
def test_its_keys_are_its_parameters(name):
    node: Any = OmegaConf.to_container(OmegaConf.load(config.conf_dir() / f"adaptation/{name}.yaml"))
    target = locate(node.pop("_target_"), ADAPTATION)
    parameters = [*inspect.signature(target).parameters.values()]
    assert [parameter.name for parameter in parameters[:2]] == ["clip", "task"]
    assert {one.name: "???" if one.default is one.empty else one.default for one in parameters[2:]} == node


@pytest.mark.parametrize("name", NAMES)
def test_it_names_its_paper(name):
    text = inspect.getdoc(type(adaptation(name))) or ""
    assert re.search(r"\w+ (et al\.|& \w+),?[^)]* (19|20)\d\d", " ".join(text.split()))
    assert re.search(r"arXiv:\d{4}\.\d{4,5}|not on arXiv", text)


@EACH
def test_frozen_weights_stay_as_they_are(case):
    classifier = classifier_of(case)
    frozen = {name: weight.clone() for name, weight in classifier.clip.model.state_dict().items()}
    plain = classifier.output(images(1)).text_logits() is None
    learner = Learner(classifier, (CrossEntropy if plain else DecoupledCrossEntropy)(classifier.clip, TASK)).train()
    learned = [*learner.parameters()]
    before = [parameter.clone() for parameter in learned]
    losses, _ = learner(images(4), LABELS, "pixels")
    if learned:
        optimizer = torch.optim.AdamW(learned, lr=0.1, weight_decay=0.1)
        sum(losses.values()).backward()
        optimizer.step()
    assert all(not torch.equal(now, then) for now, then in zip(learned, before, strict=True))
    assert all(torch.equal(weight, frozen[name]) for name, weight in classifier.clip.model.state_dict().items())
    assert all(weight.grad is None and not weight.requires_grad for weight in classifier.clip.model.parameters())
    assert not classifier.clip.model.training


@EACH
def test_every_parameter_has_a_gradient(case):
    classifier = classifier_of(case)
    perturb(classifier.adaptation)
    found = gradients(classifier, images(4))
    assert all(gradient.isfinite().all() and gradient.any() for gradient in found.values())
    trained = {id(parameter) for parameter in Learner(classifier, CrossEntropy(classifier.clip, TASK)).parameters()}
    assert trained == {id(parameter) for parameter in classifier.adaptation.parameters()}


@EACH
def test_the_state_is_what_was_learned(case):
    classifier = classifier_of(case)
    perturb(classifier.adaptation)
    state = classifier.adaptation.state_dict()
    learned = dict(classifier.adaptation.named_parameters()) | dict(classifier.adaptation.named_buffers())
    assert state.keys() == learned.keys()
    weights = {weight.data_ptr() for weight in classifier.clip.model.state_dict().values()}
    assert not weights & {tensor.data_ptr() for tensor in state.values()}
    again = classifier_of(case)
    again.adaptation.load_state_dict(state, strict=True)
    assert torch.equal(again(images(4)), classifier(images(4)))


@EACH
def test_from_the_cut_as_from_the_pixels(case):
    classifier = classifier_of(case)
    perturb(classifier.adaptation)
    pixels = images(4)
    start = classifier.prefix(pixels)
    assert torch.equal(classifier(start, classifier.image_cut), classifier(pixels))
    image = (
        classifier.encode_image(start, classifier.image_cut) if classifier.adaptation.capabilities.conditional else None
    )
    assert torch.equal(classifier.output(pixels, text=classifier.class_embeddings(image)).logits, classifier(pixels))


@EACH
@torch.no_grad()
def test_nothing_before_the_cut_depends_on_what_is_learned(case):
    classifier = classifier_of(case)
    clip, built = classifier.clip, classifier.adaptation
    names = [*chain.from_iterable(built.find_names(CLASS_NAMES))]

    def at_the_cuts() -> list[Tensor]:
        unshared = built.capabilities.unshared_prefix
        prompts = clip.tokenize_in_chunks(built.prompts(names), unshared_prefix=unshared)
        image = classifier.image.run(images(2), built.edits("image"), built.stages("image"), stop=classifier.image_cut)
        text = prompts.run(clip.text, built.edits("text"), built.stages("text"), stop=classifier.text_cut)
        return [image, values(text), classifier(images(2))]

    before = at_the_cuts()
    perturb(built)
    after = at_the_cuts()
    assert torch.equal(before[0], after[0]) and torch.equal(after[0], classifier.prefix(images(2)))
    assert torch.equal(before[1], after[1]) and torch.equal(after[1], values(classifier.text_start))
    if [*built.parameters()]:
        assert not torch.equal(before[2], after[2])


@EACH
@torch.no_grad()
def test_classes_have_no_order(case):
    classifier = classifier_of(case)
    perturb(classifier.adaptation)
    expected, order = classifier(images(4)), [3, 0, 4, 2, 1]
    for part in parts(classifier.adaptation):
        if part.capabilities.fixed_classes is None:
            continue
        part.declare(fixed_classes=tuple(CLASS_NAMES[i] for i in order))
        for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            if name == "labels":
                tensor.copy_(torch.tensor(order).argsort()[tensor])
            elif tensor.dim() and len(tensor) == len(CLASS_NAMES):
                tensor.copy_(tensor[order].clone())
    close(classifier.for_classes([CLASS_NAMES[i] for i in order])(images(4)), expected[:, order])


@EACH
@torch.no_grad()
def test_a_batch_is_its_images(case):
    classifier = classifier_of(case)
    close(torch.cat([classifier(image[None]) for image in images(4)]), classifier(images(4)))


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_number_formats(case, dtype):
    classifier = classifier_of(case)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        logits = classifier(images(4))
        found = gradients(classifier, images(4))
    assert logits.dtype == torch.float32 and logits.isfinite().all()
    close(logits, classifier(images(4)), 0.1)
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in found.values())


@EACH
def test_other_classes_or_the_reason_why_not(case):
    classifier = classifier_of(case)
    owned = classifier.adaptation.capabilities.fixed_classes
    if owned is None or classifier.adaptation.capabilities.serves_unseen:
        assert classifier.for_classes(["dog", "owl"])(images(4)).shape == (4, 2)
    else:
        with pytest.raises(UserError, match="each of its classes, which can't serve others"):
            classifier.for_classes(["dog", "owl"])
        some = [CLASS_NAMES[1], CLASS_NAMES[0]]
        close(classifier.for_classes(some)(images(4)), classifier(images(4))[:, [1, 0]])
    assert classifier.for_classes(CLASS_NAMES)(images(4)).shape == (4, len(CLASS_NAMES))


@pytest.mark.parametrize("case", CASES | COMBINED)
def test_what_is_found_without_gradients_is_in_its_state(case):
    before = classifier_of(case)
    found, asked = fitted(case)
    old, new = before.adaptation.state_dict(), found.adaptation.state_dict()
    changed = [name for name in new if not torch.equal(new[name], old[name])]
    assert changed == [name for name in new if name in CLOSED_FORM.get(case, [])]
    assert len(changed) == len(CLOSED_FORM.get(case, []))
    assert bool(asked) == bool(changed)
    assert ("validation" in asked) == before.adaptation.capabilities.needs_validation
    numbers = sum(buffer.numel() for name, buffer in found.adaptation.named_buffers() if name in changed)
    assert found.adaptation.capabilities.num_fitted_values in (0, numbers)
    logits = found(images(4))
    assert logits.isfinite().all()
    assert torch.equal(logits, before(images(4))) == (not changed or case in KEEPING)


@pytest.mark.parametrize("case", CASES | COMBINED)
def test_a_fit_without_gradients_gives_the_same_again(case):
    found, _ = fitted(case)
    again, _ = fitted(case)
    state = found.adaptation.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.adaptation.state_dict().items())
    loaded = classifier_of(case)
    loaded.adaptation.load_state_dict(state, strict=True)
    assert torch.equal(loaded(images(4)), found(images(4)))
    assert all(value.grad is None and value.requires_grad for value in found.adaptation.parameters())
    assert all(value.grad is None and not value.requires_grad for value in found.clip.model.parameters())


@EACH
@torch.no_grad()
def test_tensors_of_its_own_for_each_of_several_images(case):
    classifier = classifier_of(case)
    built = classifier.adaptation
    assert built.capabilities.supports_batched_params == (case in PER_IMAGE)
    before = {name: value.clone() for name, value in built.named_parameters()}
    with batched_parameters(built, 3) as tensors:
        perturb(built)
        shapes = {
            name: (3, *value.shape) if built.capabilities.supports_batched_params else value.shape
            for name, value in before.items()
        }
        assert shapes == {name: value.shape for name, value in tensors.items()}
        assert all(not torch.equal(tensors[name], value) for name, value in before.items())
    assert before.keys() == dict(built.named_parameters()).keys()
    assert all(torch.equal(value, before[name]) for name, value in built.named_parameters())


@pytest.mark.parametrize("case", PER_IMAGE)
@torch.no_grad()
def test_class_embeddings_of_tensors_for_each_of_several_images(case):
    classifier = classifier_of(case)
    built = classifier.adaptation
    with batched_parameters(built, 3) as tensors:
        perturb(built)
        each = {name: value.clone() for name, value in tensors.items()}
        found = classifier.class_embeddings().expand(3, -1, -1)
    for i in range(3):
        built.load_state_dict({name: value[i] for name, value in each.items()})
        close(found[i], classifier.class_embeddings())


@EACH
def test_it_is_tuned_to_an_image_and_left_as_it_was(case):
    classifier = classifier_of(case).eval()
    state = {name: value.clone() for name, value in classifier.adaptation.state_dict().items()}
    x = classifier.prefix(images(4)).unflatten(0, (2, 2))
    learned = dict(classifier.adaptation.named_parameters())
    if learned:
        found = PromptTuning(selection=1.0).tune(classifier, x)
        assert found.logits.shape == (2, len(CLASS_NAMES)) and found.logits.isfinite().all()
        assert all(found.tensors[name].shape == (2, *value.shape) for name, value in learned.items())
        assert any(not torch.equal(found.tensors[name][0], value) for name, value in learned.items())
    assert all(torch.equal(value, state[name]) for name, value in classifier.adaptation.state_dict().items())
    assert [*map(id, classifier.adaptation.parameters())] == [*map(id, learned.values())]


@pytest.mark.parametrize(
    "case", [case if case in COMPILED else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_it_compiles_as_one_graph(case):
    if case.startswith(ITERATING):
        pytest.skip("its iterations end where the data say, so it compiles in parts")
    classifier = classifier_of(case)
    learner = Learner(classifier, CrossEntropy(classifier.clip, TASK))
    torch.compiler.reset()
    compiled = torch.compile(learner, fullgraph=True, backend="eager")
    start = classifier.prefix(images(4))
    losses, logits = compiled(start, LABELS, classifier.image_cut)
    expected_losses, expected = learner(start, LABELS, classifier.image_cut)
    assert losses.keys() == expected_losses.keys()
    close(logits, expected)


@pytest.mark.parametrize("name", NEUTRAL)
@torch.no_grad()
def test_a_neutral_start_is_zero_shot(name):
    zero_shot = ZeroShot(golden(), TASK, templates=TASK.templates[:1] if name in OF_ONE_TEMPLATE else None)
    expected = Classifier(golden(), zero_shot, CLASS_NAMES)(images(4))
    close(Classifier(golden(), adaptation(*NEUTRAL[name]).eval(), CLASS_NAMES)(images(4)), expected)


@pytest.mark.gpu
@EACH
def test_in_bfloat16_on_the_gpu(case):
    classifier = classifier_of(case, "cuda")
    frozen = {name: weight.clone() for name, weight in classifier.clip.model.state_dict().items()}
    perturb(classifier.adaptation)
    pixels = images(4).cuda()
    expected = classifier(pixels)
    with torch.autocast("cuda", torch.bfloat16):
        logits = classifier(pixels)
        assert torch.equal(classifier(classifier.prefix(pixels), classifier.image_cut), logits)
        found = gradients(classifier, pixels)
    close(logits, expected, 0.1)
    assert all(gradient.isfinite().all() and gradient.any() for gradient in found.values())
    if found:
        for parameter, gradient in zip(classifier.adaptation.parameters(), found.values(), strict=True):
            parameter.grad = gradient
        torch.optim.SGD(classifier.adaptation.parameters(), lr=0.1).step()
    assert all(torch.equal(weight, frozen[name]) for name, weight in classifier.clip.model.state_dict().items())
