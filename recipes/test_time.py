"""The test-time protocol: methods that adapt to test images, on image sets and corruptions."""

from clipadapt.cli import protocol
from clipadapt.studies import Study


@protocol("test_time")
def main(study: Study) -> None:
    """Adapt to each test image, or along a stream of them, without labels; on clean, shifted and corrupted images.

    python recipes/test_time.py                                     five methods against zero-shot on drawings
    python recipes/test_time.py methods=[tpt,tda] data=[imagenet_a] corruptions=[] backbone=ViT-B-16
    """
    from clipadapt.studies.compare import show

    show(study)


if __name__ == "__main__":
    main()
