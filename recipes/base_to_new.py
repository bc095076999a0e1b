"""The base-to-new protocol: learn half of the classes, test on both halves."""

from clipadapt.cli import protocol
from clipadapt.studies import Study


@protocol("base_to_new")
def main(study: Study) -> None:
    """Learn the first half of the classes, and test on them and on the other half, known only by class names.

    python recipes/base_to_new.py                                   CoOp, CoCoOp and KgCoOp on digits and drawings
    python recipes/base_to_new.py methods=[promptsrc,maple] data=[oxford_pets] backbone=ViT-B-16

    H is the harmonic mean of both accuracies (Zhou et al., CVPR 2022, section 4.1).
    """
    from clipadapt.studies.compare import show

    show(study)


if __name__ == "__main__":
    main()
