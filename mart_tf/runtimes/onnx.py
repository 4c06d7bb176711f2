"""An `.onnx` file, computed by ONNX Runtime on the CPU."""

import numpy as np
import onnxruntime

from mart_tf import errors


class Network:
    """The network in an `.onnx` file.

    Args:
        content: The bytes of the file: weights in other files beside it are
            not looked for.

    Attributes:
        input_shape: Shape of one image; None where a size is free.
        classes: Number of scores.
        rounding: 0, for they are floats; see `litert.Network`.

    Raises:
        ValueError: If ONNX Runtime cannot read it, or it does not turn one
            batch of images into scores.
    """

    def __init__(self, content):
        options = onnxruntime.SessionOptions()
        # Errors are raised; warnings are of the optimizer's own business.
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        # It raises classes of its own for each kind of damage.
        except Exception as error:
            raise ValueError(errors.first_line(error)) from error
        inputs, outputs = (
            self._session.get_inputs(),
            self._session.get_outputs(),
        )
        if len(inputs) != 1 or len(outputs) != 1:
            raise ValueError(
                f"it has {len(inputs)} inputs and {len(outputs)} outputs"
            )
        for tensor in (*inputs, *outputs):
            if tensor.type != "tensor(float)":
                raise ValueError(f"{tensor.name!r} is a {tensor.type}")
        self._input = inputs[0].name
        size, *shape = [_size(each) for each in inputs[0].shape] or [0]
        self.input_shape = tuple(shape)
        scores = outputs[0].shape
        if size not in (None, 1) or len(scores) != 2 or not _size(scores[1]):
            raise ValueError(f"it maps {inputs[0].shape} to {scores}")
        self.classes = scores[1]
        self.rounding = 0.0
        self._one_by_one = size == 1

    def answer(self, images):
        """Scores, float32 `[batch, classes]`, of images, `[batch, ...]`."""
        images = np.asarray(images, np.float32)
        if not self._one_by_one:
            return self._run(images)
        return np.concatenate([self._run(one[None]) for one in images])

    def _run(self, images):
        [scores] = self._session.run(None, {self._input: images})
        return scores


def _size(size):
    """A dimension, None where it is free: it has a name there."""
    return size if isinstance(size, int) and size > 0 else None
