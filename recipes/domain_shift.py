"""The domain-shift protocol: learn one data set, test on shifted versions of it."""

from clipadapt.cli import protocol
from clipadapt.studies import Study


@protocol("domain_shift")
def main(study: Study) -> None:
    """Learn one data set, and test on images of the same classes from shifted distributions.

    python recipes/domain_shift.py                                  drawn shapes, and their five other styles
    python recipes/domain_shift.py data=[imagenet] targets=[imagenet_v2,imagenet_sketch] backbone=ViT-B-16

    Papers call it domain generalisation (Zhou et al., CVPR 2022, section 4.3).
    """
    from clipadapt.studies.compare import show

    show(study)


if __name__ == "__main__":
    main()
