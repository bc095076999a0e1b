"""The few-shot protocol: accuracy against labelled images per class, over seeds."""

from clipadapt.cli import protocol
from clipadapt.studies import Study


@protocol("few_shot")
def main(study: Study) -> None:
    """Learn from 1 to 16 labelled images per class, and test on all test images (Zhou et al., IJCV 2022, section 4.1).

    python recipes/few_shot.py                                      four methods on handwritten digits, 3 seeds
    python recipes/few_shot.py methods=[coop,maple] shots=[1,4,16]
    python recipes/few_shot.py data=[oxford_pets,dtd] backbone=ViT-B-16
    """
    from clipadapt.studies.compare import show

    show(study)


if __name__ == "__main__":
    main()
