"""Random seeds that are the same in every process and on every machine."""


def hash_seed(*numbers: int) -> int:
    """Hash several numbers to one seed; neighbouring numbers give unrelated seeds."""
    mixed = 0
    for number in numbers:
        mixed = ((mixed ^ number) * 6364136223846793005 + 1442695040888963407) % 2**63
        mixed ^= mixed >> 29
    return mixed


def view_seed(content: bytes, view: int) -> int:
    """Return the seed of a random view of an image: the same image content and view number give the same seed.

    Args:
        content: the hash of the image's content (see `clipadapt.data.images.digest`).
        view: the number of the view.
    """
    return hash_seed(int.from_bytes(content[:7], "little"), view)
