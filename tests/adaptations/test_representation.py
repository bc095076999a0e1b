"""Tokens in the upper blocks of both towers and two heads: what golden records and contracts don't show."""

import pytest
import torch
from torch.nn import functional

from clipadapt.adaptations import Composed
from clipadapt.backbone.towers import Tower, reading_first
from clipadapt.errors import UserError
from clipadapt.objectives import HeadConsistency
from clipadapt.objectives.base import Output
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.views import one_feature
from tests.small import CLASS_NAMES, TASK, adaptation, close, golden, images

NODE = "method.adaptation."


@torch.no_grad()
@pytest.mark.parametrize("blocks", ["[4]", "[2,4]", "[1,2,3]"])
def test_classes_at_once_are_classes_alone_whatever_their_prompts_share(blocks):
    built = adaptation("representation_tokens", f"{NODE}blocks={blocks}")
    whole = Classifier(golden(), built, CLASS_NAMES).text_features()
    alone = [Classifier(golden(), built, [name]).text_features() for name in CLASS_NAMES]
    close(whole, torch.cat(alone))
    chunks = Classifier(golden(), built, CLASS_NAMES, max_rows=20)
    assert chunks.text_chunks > 1
    close(chunks.text_features(), whole)


def test_the_upper_half_of_the_blocks():
    built = adaptation("representation_tokens")
    assert [*built.to_text] == [*built.to_image] == ["2", "3", "4"]
    with pytest.raises(UserError, match=r"blocks=\[2, 5\] has a number beyond the 4 blocks of both towers"):
        adaptation("representation_tokens", f"{NODE}blocks=[2,5]")


@torch.no_grad()
def test_classes_that_were_not_learned_are_told_by_the_class_token_alone():
    classifier = Classifier(golden(), adaptation("representation_tokens"), CLASS_NAMES)
    (first, class_token), (second, tokens) = classifier.output(images(2)).heads()
    assert (first, second) == (0.7, pytest.approx(0.3))
    close(classifier(images(2)), 0.7 * class_token + 0.3 * tokens)
    close(classifier.for_classes(CLASS_NAMES[:2])(images(2)), classifier(images(2))[:, :2])
    close(classifier.for_classes([*CLASS_NAMES, "owl"])(images(2))[:, :5], class_token)


@torch.no_grad()
def test_beside_another_adaptation():
    alone = adaptation("representation_tokens")
    together = Composed(golden(), TASK, {"adaptation": alone, "text": adaptation("zero_shot")})
    close(*(Classifier(golden(), one, [*CLASS_NAMES, "owl"])(images(2)) for one in (together, alone)))
    assert len(Classifier(golden(), together, CLASS_NAMES).output(images(2)).heads()) == 2


def test_where_prompts_share_no_start():
    beside = "+adaptation@method.also.weights=lora", "method.also.weights.towers=text"
    built = adaptation("representation_tokens", *beside)
    with pytest.raises(UserError, match="since they share no start: use a text tower that is causal, as CLIP's is"):
        Classifier(golden(), built, CLASS_NAMES).class_embeddings()


def test_an_image_tower_that_is_not_read_at_a_class_token():
    for stages in ({"pixels": len}, {"block.0": len, "tokens": len}):
        with pytest.raises(UserError, match="the image tower isn't read at a class token: use a vision transformer"):
            reading_first(Tower("image", stages), 6)


def test_several_features_at_test_time():
    for name in ("representation_tokens", "visual_transport"):
        with pytest.raises(UserError, match="reads several features of an image, as of its patches"):
            one_feature(adaptation(name))


def test_the_losses_by_hand_of_two_heads():
    objective, labels = HeadConsistency(golden(), TASK, weight=2.0), torch.tensor([0, 1, 4])
    logits, image, frozen, text = (torch.randn(*shape) for shape in ((3, 5), (3, 64), (3, 64), (5, 64)))
    weights = torch.tensor([1.0, 2.0, 1.0, 1.0, 0.5])
    two = [(0.7, logits), (0.3, 2 * logits)]
    output = Output(logits, image, text, None, None, [frozen], weights, lambda: two)
    each = [functional.cross_entropy(x, labels, reduction="none") * weights[labels] for _, x in two]
    found = objective(output, labels)
    close(found["cross_entropy"], 0.7 * each[0].mean() + 0.3 * each[1].mean())
    close(found["image"], 2 * (1 - functional.cosine_similarity(image, frozen).mean()))
    close(found["text"], 2 * (1 - functional.cosine_similarity(text, objective.handwritten).mean()))
    close(output.shifted(torch.arange(5.0)).heads()[1][1], 2 * logits + torch.arange(5.0))
