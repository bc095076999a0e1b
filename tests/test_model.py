"""CLIP through an adaptation: class names, cuts, and several adaptations as one."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from clipadapt.adaptations import Adaptation, Composed, Context, FeatureAdapter, PixelFrame, ZeroShot
from clipadapt.errors import UserError
from clipadapt.tasks.classification import Classifier
from tests.small import CLASS_NAMES, TASK, close, golden, images


class Shift(Adaptation):
    """Adds to the image features, and replaces stages."""

    def __init__(self, times: float = 1.0, plus: float = 0.0, stages: tuple[str, ...] = ()) -> None:
        super().__init__(golden(), TASK)
        self.times, self.plus, self.replaced = times, plus, stages

    def edits(self, tower, image=None):
        return {"features": lambda x: self.times * x + self.plus} if tower == "image" else {}

    def stages(self, tower):
        return {point: lambda x: x for point in self.replaced}


def classifier(adaptation: Adaptation, names: list[str] = CLASS_NAMES) -> Classifier:
    return Classifier(golden(), adaptation, names)


@pytest.mark.parametrize("count", [1, 3])
def test_zero_shot_is_what_open_clip_computes(count):
    clip = golden()
    templates = ["a photo of a {}.", "a drawing of the {}.", "{}!"][:count]
    found = classifier(ZeroShot(clip, TASK, templates=templates))(images(4))
    texts = [template.replace("{}", name.replace("_", " ")) for name in CLASS_NAMES for template in templates]
    ids = torch.zeros(len(texts), 77, dtype=torch.long)
    for row, text in zip(ids, texts, strict=True):
        sequence = clip.tokenizer.sequence(text)
        row[: len(sequence)] = torch.tensor(sequence)
    with torch.no_grad():
        text = functional.normalize(clip.model.encode_text(ids), dim=-1).unflatten(0, (-1, count)).mean(dim=1)
        image = functional.normalize(clip.model.encode_image(images(4)), dim=-1)
    close(found, clip.scale * image @ functional.normalize(text, dim=-1).T)


def test_templates_of_its_own_and_hyphens():
    clip = golden()
    assert ZeroShot(clip, TASK).prompts(["tree_frog"]) == [["a photo of a tree frog.", "a drawing of the tree frog."]]
    assert ZeroShot(clip, TASK, ["the {}"], keep_hyphens=False).prompts(["T-shirt"]) == [["the T shirt"]]
    with pytest.raises(UserError, match=r"every template needs a \{\}"):
        ZeroShot(clip, TASK, ["a photo"])


@pytest.mark.parametrize(
    ("make", "image_cut", "text_cut"),
    [
        (lambda: ZeroShot(golden(), TASK), "features", "features"),
        (lambda: FeatureAdapter(golden(), TASK), "features", "features"),
        (lambda: Context(golden(), TASK), "features", "words"),
        (lambda: PixelFrame(golden(), TASK), "pixels", "features"),
        (lambda: Shift(stages=("block.2", "block.1")), "block.1", "block.1"),
        (
            lambda: Composed(golden(), TASK, {"a": Context(golden(), TASK), "b": PixelFrame(golden(), TASK)}),
            "pixels",
            "words",
        ),
    ],
)
def test_cuts(make, image_cut, text_cut):
    built = classifier(make())
    assert (built.image_cut, built.text_cut) == (image_cut, text_cut)


def test_what_lies_before_the_cut_has_no_gradients():
    built = classifier(Context(golden(), TASK, n_ctx=2))
    assert not built.text_start.chunks[0][0].values.requires_grad
    assert not built.prefix(images(1)).requires_grad
    assert built(images(1)).requires_grad


def test_edits_compose_in_their_order():
    doubled, raised = Shift(times=2), Shift(plus=1)
    raw = golden().image.run(images(2))
    assert torch.equal(
        classifier(Composed(golden(), TASK, {"a": doubled, "b": raised})).encode_image(raw, "features"), 2 * raw + 1
    )
    assert torch.equal(
        classifier(Composed(golden(), TASK, {"a": raised, "b": doubled})).encode_image(raw, "features"), 2 * (raw + 1)
    )


def test_learned_tensors_are_named_after_their_parts():
    composed = Composed(golden(), TASK, {"text": Context(golden(), TASK), "image": FeatureAdapter(golden(), TASK)})
    assert composed.templates == TASK.templates
    assert {*composed.state_dict()} == {"parts.text.context", "parts.image.down.weight", "parts.image.up.weight"}


def test_one_part_writes_the_prompts():
    context, hand_written = Context(golden(), TASK, n_ctx=3), ZeroShot(golden(), TASK)
    with pytest.raises(UserError, match=r"^text and words can't be combined: each has prompts of its own$"):
        Composed(golden(), TASK, {"text": context, "pixels": PixelFrame(golden(), TASK), "words": hand_written})
    padding = PixelFrame(golden(), TASK)
    for parts in ({"a": padding, "b": context}, {"a": context, "b": padding}):
        assert Composed(golden(), TASK, parts).prompts(["cat"]) == context.prompts(["cat"])


def test_a_stage_is_replaced_once():
    with pytest.raises(
        UserError, match=r"'b' would replace stage 'block\.1', which another adaptation replaces already"
    ):
        Composed(golden(), TASK, {"a": Shift(stages=("block.1",)), "b": Shift(stages=("block.1", "block.2"))})
    both = classifier(Composed(golden(), TASK, {"a": Shift(stages=("block.1",)), "b": Shift(stages=("block.2",))}))
    assert torch.equal(both(images(2)), classifier(Shift(stages=("block.1", "block.2")))(images(2)))


def test_what_belongs_to_classes_serves_no_others():
    context = Context(golden(), TASK, n_ctx=2, class_specific=True)
    for adaptation in (context, Composed(golden(), TASK, {"a": PixelFrame(golden(), TASK), "b": context})):
        with pytest.raises(UserError, match="each of its classes, which can't serve others"):
            classifier(adaptation).for_classes([CLASS_NAMES[0], "dog"])


def test_some_of_the_classes_that_it_belongs_to():
    context = Context(golden(), TASK, n_ctx=2, class_specific=True)
    for adaptation in (context, Composed(golden(), TASK, {"a": PixelFrame(golden(), TASK), "b": context})):
        whole = classifier(adaptation)
        some = whole.for_classes([CLASS_NAMES[2], CLASS_NAMES[0]])
        close(some(images(4)), whole(images(4))[:, [2, 0]])


def test_other_classes():
    context = Context(golden(), TASK, n_ctx=2)
    others = classifier(context).for_classes(["dog", "cat"])
    assert others.adaptation is context and others.class_names == ["dog", "cat"]
    close(others(images(2))[:, 1], classifier(context)(images(2))[:, 0])


def test_an_adaptation_of_another_backbone_is_refused():
    opaque = SimpleNamespace(text=golden().image)
    with pytest.raises(UserError, match="no point 'words'"):
        Context(opaque, TASK)


def test_a_context_from_words_is_shared_and_needs_words():
    with pytest.warns(UserWarning, match="class_specific has no effect"):
        context = Context(golden(), TASK, class_specific=True, words="a photo of a")
    assert context.context.ndim == 2 and context.capabilities.fixed_classes is None
    with pytest.raises(UserError, match="no words"):
        Context(golden(), TASK, words=" ")


@pytest.mark.parametrize("names", ["cat", [], [1, 2]])
def test_class_names_are_a_list_of_texts(names):
    with pytest.raises(UserError, match="class names must be a list of texts"):
        classifier(ZeroShot(golden(), TASK)).for_classes(names)
