"""The cross-data-set protocol: learn one data set, test on others."""

from clipadapt.cli import protocol
from clipadapt.studies import Study


@protocol("cross_dataset")
def main(study: Study) -> None:
    """Learn one data set, and classify the images of others with the learned parameters and their class names.

    python recipes/cross_dataset.py                                 from drawn shapes to glyphs, pairs and digits
    python recipes/cross_dataset.py data=[imagenet] targets=[caltech101,dtd] backbone=ViT-B-16

    The papers learn all classes of ImageNet from 16 images per class (Zhou et al., CVPR 2022, section 4.2).
    """
    from clipadapt.studies.compare import show

    show(study)


if __name__ == "__main__":
    main()
