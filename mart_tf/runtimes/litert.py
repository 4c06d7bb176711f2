"""A `.tflite` file, computed by LiteRT on the CPU."""

import os
import threading

from ai_edge_litert import interpreter as litert
import numpy as np

from mart_tf import errors

_INTEGERS = (np.int8, np.uint8)


class Network:
    """The network in a `.tflite` file.

    Where its images or scores are integers, they are converted as the file
    says: value = scale * (integer - zero point).

    Args:
        content: The bytes of the file.

    Attributes:
        input_shape: Shape of one image.
        classes: Number of scores.
        rounding: How far a score may be from what the network computes: half
            a step of the integers that it is stored in, 0 of floats.

    Raises:
        ValueError: If LiteRT cannot read it, or it does not turn one batch of
            images into scores.
    """

    def __init__(self, content):
        # It names a file of another kind, or an operation that it lacks.
        try:
            self._interpreter = litert.Interpreter(
                model_content=content, num_threads=os.cpu_count()
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ValueError(errors.first_line(error)) from error
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ValueError(
                f"it has {len(inputs)} inputs and {len(outputs)} outputs"
            )
        for tensor in (*inputs, *outputs):
            if tensor["dtype"] not in (np.float32, *_INTEGERS):
                kind = np.dtype(tensor["dtype"]).name
                raise ValueError(f"{tensor['name']!r} holds {kind} values")
        self._input, self._output = inputs[0], outputs[0]
        size, *self.input_shape = map(int, self._input["shape_signature"])
        self.input_shape = tuple(
            None if each < 0 else each for each in self.input_shape
        )
        if size not in (-1, 1) or len(self._output["shape"]) != 2:
            raise ValueError(
                f"it maps {self._input['shape_signature'].tolist()} to "
                f"{self._output['shape_signature'].tolist()}"
            )
        self.classes = int(self._output["shape"][1])
        self.rounding = self._output["quantization"][0] / 2
        self._one_by_one = size == 1
        self._allocated = None
        # One interpreter holds one batch at a time.
        self._lock = threading.Lock()

    def answer(self, images):
        """Scores, float32 `[batch, classes]`, of images, `[batch, ...]`."""
        images = np.asarray(images, np.float32)
        with self._lock:
            if not self._one_by_one:
                return self._run(images)
            return np.concatenate([self._run(one[None]) for one in images])

    def _run(self, images):
        if images.shape != self._allocated:
            self._interpreter.resize_tensor_input(
                self._input["index"], images.shape
            )
            self._interpreter.allocate_tensors()
            self._allocated = images.shape
        self._interpreter.set_tensor(
            self._input["index"], _stored(images, self._input)
        )
        self._interpreter.invoke()
        scores = self._interpreter.get_tensor(self._output["index"])
        return _meant(scores, self._output)


def _stored(values, tensor):
    """Values as a tensor holds them."""
    if tensor["dtype"] == np.float32:
        return values
    scale, zero = tensor["quantization"]
    bounds = np.iinfo(tensor["dtype"])
    integers = np.round(values / np.float32(scale)) + zero
    return np.clip(integers, bounds.min, bounds.max).astype(tensor["dtype"])


def _meant(values, tensor):
    """What the values of a tensor stand for."""
    if tensor["dtype"] == np.float32:
        return values
    scale, zero = tensor["quantization"]
    return np.float32(scale) * (values.astype(np.float32) - zero)
