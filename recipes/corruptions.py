"""The corruption protocol: test images with ImageNet-C's corruptions (without frost), at five severities."""

from clipadapt.cli import protocol
from clipadapt.studies import Study


@protocol("corruptions")
def main(study: Study) -> None:
    """Learn from clean images, and test on corrupted ones; the table has the mean over severities.

    python recipes/corruptions.py                                   three methods on handwritten digits
    python recipes/corruptions.py corruptions=[gaussian_noise] severities=[5] methods=[coop]

    Corruptions and severities are ImageNet-C's (Hendrycks & Dietterich, ICLR 2019).
    """
    from clipadapt.studies.compare import show

    show(study)


if __name__ == "__main__":
    main()
