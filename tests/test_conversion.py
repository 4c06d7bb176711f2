"""Which axis of an image holds its channels."""

import numpy as np
import pytest

from mart_tf.data import conversion


@pytest.mark.parametrize(
    "shape", [(2, 3, 32, 32), (2, 1, 5, 5), (2, 3, 24, 48), (2, 1, 100, 20)]
)
def test_channels_that_come_first_are_refused(shape):
    with pytest.raises(ValueError, match="channels before height and width"):
        conversion.images("mine", np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    "shape",
    [
        # Nine sensors at 128 times, and a strip three pixels high.
        (2, 1, 128, 9),
        (2, 3, 64, 8),
        (2, 3, 3, 3),
        (2, 32, 32, 3),
    ],
)
def test_signals_and_small_images_are_read(shape):
    images = conversion.images("mine", np.zeros(shape, np.float32))
    assert images.shape == shape
