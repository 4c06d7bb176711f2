"""Image files: what their headers say, and their pixels."""

from concurrent import futures
import contextlib
import warnings

import numpy as np
from PIL import Image

from mart_tf import limits

# Whatever else Pillow reads, PostScript among it, is no image of a data set.
# A file's own bytes say which it is, not its name.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")

# Pillow's kinds of pixels and what they are read as; reading transparency or 16
# bits so would lose them.
_READ_AS = {
    "1": "L",
    "L": "L",
    "P": "RGB",
    "RGB": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
}

# Images with more pixels than this are decoded one at a time, up to 8 bytes a
# pixel; in a thread of their own, as each thread keeps memory for its next one.
_LARGE = 2**22
# Files that threads are given at a time: each takes a kilobyte until it is had.
_AT_ONCE = 2048
_for_large = futures.ThreadPoolExecutor(max_workers=1)


def header(path):
    """What an image's header says.

    Returns:
        "L" or "RGB", Pillow's kind of pixels that it is read as, its height
        and its width.

    Raises:
        ValueError: If it is no image that can be read, or has more pixels than
            Pillow's own limit, `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    with _opened(path) as image:
        kind, (width, height) = _kind(image), image.size
    if kind not in _READ_AS:
        raise ValueError(
            f"{path} has pixels of the kind {kind}; expected greyscale or "
            "colour of 8 bits without transparency: convert it."
        )
    return _READ_AS[kind], height, width


def in_threads(function, paths):
    """Yields what a function makes of each path, in order.

    Pillow's warnings of large images are not heard meanwhile: they begin at its
    limit, and what is above is refused here.
    """
    with (
        warnings.catch_warnings(
            action="ignore", category=Image.DecompressionBombWarning
        ),
        futures.ThreadPoolExecutor() as threads,
    ):
        # One file after the other, a disk of the network waits for each.
        for start in range(0, len(paths), _AT_ONCE):
            yield from threads.map(function, paths[start : start + _AT_ONCE])


def _kind(image):
    """Pillow's kind of pixels, and what that leaves unsaid."""
    kind = image.mode
    # Pillow's RGB has 8 bits; a PNG file's own kind is that of its tiles.
    if any(args == "RGB;16B" for *_, args in image.tile):
        kind += " of 16 bits"
    # A colour that stands for none, in a PNG or GIF file.
    if "transparency" in image.info:
        kind += " with transparency"
    return kind


def pixels(path, kind, shape):
    """One image, uint8 of `shape`.

    Args:
        path: The file.
        kind: "L" or "RGB".
        shape: Height, width, channels; an image of another size is resized
            (bilinear, antialiased).

    Raises:
        ValueError: As `header`.
    """
    with _opened(path) as image:
        if image.width * image.height <= _LARGE:
            return _decoded(image, kind, shape)
        return _for_large.submit(_decoded, image, kind, shape).result()


def _decoded(image, kind, shape):
    height, width, _ = shape
    with contextlib.closing(image):
        if image.mode != kind:
            image = image.convert(kind)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.array(image).reshape(shape)


@contextlib.contextmanager
def _opened(path):
    """An image, its header read; what is wrong with it is one sentence."""
    with limits.opened(path) as file:
        try:
            image = Image.open(file, formats=_FORMATS)
            most = Image.MAX_IMAGE_PIXELS
            if most is not None and image.width * image.height > most:
                raise Image.DecompressionBombError
            yield image
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise ValueError(
                f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels, "
                "Pillow's limit; expected an image for a network: scale it "
                "down."
            ) from None
        except Exception as error:
            # What Pillow raises on a file that is damaged or no image is
            # nearly anything.
            raise ValueError(
                f"{path} cannot be read as an image; replace or remove it."
            ) from error
