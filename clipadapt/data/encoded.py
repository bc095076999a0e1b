"""Images whose files lie in other files: in a shard, in a table."""

from io import BytesIO
from pathlib import Path

from PIL import Image

from clipadapt.data.images import explain, to_rgb
from clipadapt.errors import UserError


def decode(content: bytes, name: str) -> Image.Image:
    """The image of an image file's content, as upright RGB (see clipadapt.data.images.to_rgb).

    Raises:
        UserError: For what is no image, truncated or otherwise damaged; it says the name.
    """
    try:
        with Image.open(BytesIO(content)) as image:
            image.load()
            return to_rgb(image)
    except Exception as error:  # decoders of damaged files raise anything: OSError, SyntaxError, struct.error …
        raise UserError(explain(Path(name), error)) from error


def verify(content: bytes, name: str) -> None:
    """Check an image file's header (and checksums, where its format has them) without decoding it.

    Raises:
        UserError: For what is no image; it says the name.
    """
    try:
        with Image.open(BytesIO(content)) as image:
            image.verify()
    except Exception as error:  # as in decode
        raise UserError(explain(Path(name), error)) from error
