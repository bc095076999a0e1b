"""Seeds of what is random, the same in every process and on every machine."""


def hash_seed(*numbers: int) -> int:
    """One seed from several numbers; neighbours give unrelated ones."""
    mixed = 0
    for number in numbers:
        mixed = ((mixed ^ number) * 6364136223846793005 + 1442695040888963407) % 2**63
        mixed ^= mixed >> 29
    return mixed


def of_view(content: bytes, view: int) -> int:
    """The seed of a view of an image: whoever meets the same content finds the same views.

    Args:
        content: the image's digest (see `clipadapt.data.images.digest`).
        view: its number.
    """
    return hash_seed(int.from_bytes(content[:7], "little"), view)
