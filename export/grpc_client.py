"""Asks a model that TF Serving serves, over gRPC.

    python grpc_client.py --model=classifier digit.png batch.npy

Needs `pip install tensorflow-serving-api`, which brings TensorFlow's wheel: its
import takes seconds and writes lines of its own to standard error.
PNG and JPEG files go to the signature `image_bytes`, as they are; .npy files
with floats of shape [batch, height, width, channels], in the model's pixel
range, go to `serving_default`. Prints each image's class and its probability.
Copy it with payloads.py beside it, or import it:

    client = grpc_client.Client("localhost:8500", "classifier")
    client.predict([open("digit.png", "rb").read()])
"""

import contextlib
import json
import math
import os

# gRPC's own lines hold what the server said, control characters and all.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from google.protobuf import message
import grpc
import numpy as np
import payloads
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

# gRPC itself allows no more attempts than five.
_MOST_RETRIES = 4
# What gRPC says of an answer, or of its headers, beyond the limit.
_TOO_LONG = (
    "Decompressed",
    "CLIENT: Received",
    "received metadata size exceeds",
)
_PREDICT = "/tensorflow.serving.PredictionService/Predict"


RequestError = payloads.RequestError
describe = payloads.describe


class Client:
    """A connection to one model, its own; threads may share it.

    Args:
        address: The server's gRPC address, HOST:PORT.
        model: The name under which the server serves the model.
        timeout: Seconds for a whole call, its retries included; above 0, up
            to a day.
        retries: How often a call is repeated, with growing pauses, when the
            server cannot be reached or says that it is unavailable; 0 to 4.
        max_answer_bytes: Longest answer that is read, 1 or more; a class of an
            image takes 8.

    Raises:
        RequestError: If one of them is not so.
    """

    def __init__(
        self,
        address="localhost:8500",
        model="classifier",
        *,
        timeout=10.0,
        retries=3,
        max_answer_bytes=payloads.ANSWER_BYTES,
    ):
        payloads.check_settings(
            timeout, retries, max_answer_bytes, _MOST_RETRIES
        )
        # Bytes of a command line that are no UTF-8 cannot be sent.
        self._address, self._model = (
            text.encode(errors="replace").decode() for text in (address, model)
        )
        self._timeout = timeout
        self._retries = retries
        self._max_answer_bytes = max_answer_bytes
        # Plain text: for TLS, grpc.secure_channel(address,
        # grpc.ssl_channel_credentials(), options) takes the same options.
        self._channel = grpc.insecure_channel(
            self._address, _options(retries, max_answer_bytes)
        )
        # As the stub does it, but the bytes of an answer are read here: gRPC
        # writes a traceback about those that it cannot read.
        self._predict = self._channel.unary_unary(
            _PREDICT, predict_pb2.PredictRequest.SerializeToString
        )

    def close(self):
        """Closes the channel; the client cannot be used after it."""
        self._channel.close()

    def predict(self, images):
        """Classifies images.

        Args:
            images: A list with the bytes of PNG or JPEG files, or numbers,
                `[batch, height, width, channels]`: an array, or nested lists,
                sent as float32.

        Returns:
            A dict for each image: `class_name`, `class_index`,
            `probabilities` and `logits`.

        Raises:
            RequestError: If the images are something else; if there is no
                answer, a refusal, or an answer that is none to these images.
        """
        # Of files, where each may have another length.
        if isinstance(images, np.ndarray) and images.dtype.kind == "O":
            images = images.tolist()
        if not isinstance(images, list | tuple):
            images = _array(images)
        if not len(images):
            raise RequestError("Got no images; expected at least one.")
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._model
        if isinstance(images, list | tuple) and payloads.are_files(images):
            request.model_spec.signature_name = "image_bytes"
            tensor = tf.make_tensor_proto(images, tf.string)
            request.inputs["image_bytes"].CopyFrom(tensor)
        else:
            request.model_spec.signature_name = "serving_default"
            tensor = tf.make_tensor_proto(_array(images))
            request.inputs["images"].CopyFrom(tensor)
        call = self._predict.future(request, timeout=self._timeout)
        try:
            # gRPC's own clock stands still while it reads headers without end.
            content = call.result(timeout=self._timeout + 1)
        except grpc.FutureTimeoutError:
            call.cancel()
            late = grpc.StatusCode.DEADLINE_EXCEEDED
            raise RequestError(self._refusal(late, "nothing")) from None
        except grpc.RpcError as error:
            said = (error.details() or "nothing")[:1000]
            said = " ".join(said.split())[:300]
            raise RequestError(self._refusal(error.code(), said)) from None
        try:
            outputs = predict_pb2.PredictResponse.FromString(content).outputs
        except (TypeError, message.DecodeError):
            # None, of a call that ended well without a message.
            raise RequestError(
                f"The answer of {self._address} is no PredictResponse; is this "
                "TensorFlow Serving's gRPC port?"
            ) from None
        try:
            return _predictions(outputs, len(images))
        except ValueError as error:
            raise RequestError(
                f"The answer of {self._address} is none to these images: "
                f"{error}; is {self._model!r} a model that mart-export wrote?"
            ) from None

    def _refusal(self, code, said):
        if code == grpc.StatusCode.UNAVAILABLE:
            return (
                f"No prediction from {self._address} (retries: "
                f"{self._retries}; {said}); is the server running, and is this "
                "its gRPC port?"
            )
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return (
                f"No prediction from {self._address} within {self._timeout:g} "
                "seconds; send fewer images at once, or allow a longer timeout."
            )
        if code == grpc.StatusCode.NOT_FOUND:
            return (
                f"The server at {self._address} has no model {self._model!r}; "
                "expected the name under which it serves one, such as its "
                f"MODEL_NAME (it said: {said})."
            )
        if said.startswith("Failed to create channel"):
            return (
                f"The address {self._address!r} is not one of a gRPC server; "
                f"expected HOST:PORT (gRPC said: {said})."
            )
        if any(part in said for part in _TOO_LONG):
            return (
                f"The answer of {self._address} is longer than "
                f"{self._max_answer_bytes:,} bytes; send fewer images at once, "
                "or allow longer answers (max_answer_bytes)."
            )
        if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
            return (
                f"The request is too large for the server at {self._address}; "
                f"send fewer or smaller images (it said: {said})."
            )
        return (
            f"The server at {self._address} refused the images for model "
            f"{self._model!r} ({code.name}, it said: {said})."
        )


def _array(images):
    """Numbers as an array, float32, of at least one dimension."""
    if isinstance(images, bytes | bytearray | str):
        raise payloads.no_images(images)
    if hasattr(images, "numpy"):
        images = images.numpy()
    payloads.check_floats(images)
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(images, np.float32)
    except (TypeError, ValueError):
        raise payloads.no_images(images) from None
    if not array.ndim:
        raise payloads.no_images(images)
    if not np.isfinite(array).all():
        raise payloads.not_finite()
    return array


def _predictions(outputs, count):
    """A dict for each image, of an answer that holds what it should."""
    columns = {}
    for key, expected in payloads.EXPECTED.items():
        if key not in outputs:
            raise ValueError(f"it has no {key}, expected {expected}")
        columns[key] = _values(key, outputs[key])
        if len(columns[key]) != count:
            raise ValueError(
                f"it has {len(columns[key])} rows of {key}, expected {count}"
            )
    plain = {key: column.tolist() for key, column in columns.items()}
    plain["class_name"] = [_text(name) for name in plain["class_name"]]
    fault = payloads.fault(_rows(plain), count)
    if fault:
        raise ValueError(fault)
    return _rows(columns)


def _rows(columns):
    return [
        dict(zip(columns, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    ]


def _values(key, tensor):
    """An output as an array of one or two dimensions.

    `tf.make_ndarray` fills whatever shape is claimed: 30 bytes ask for GiB.
    """
    kinds = {
        tf.float32.as_datatype_enum: ("<f4", tensor.float_val),
        tf.int64.as_datatype_enum: ("<i8", tensor.int64_val),
        tf.string.as_datatype_enum: (object, tensor.string_val),
    }
    kind, values = kinds.get(tensor.dtype, (object, ()))
    dimensions = tensor.tensor_shape.dim
    shape = [dimension.size for dimension in dimensions[:3]]
    size = math.prod(shape)
    content = tensor.tensor_content
    if kind is not object and content and len(content) == size * int(kind[2]):
        values = np.frombuffer(content, kind)
    if not 1 <= len(shape) <= 2 or min(shape) < 0 or len(values) != size:
        raise ValueError(
            f"{key} is {len(values)} values of type {tensor.dtype} and shape "
            f"{shape}, expected {payloads.EXPECTED[key]}"
        )
    return np.array(values, kind).reshape(shape)


def _text(name):
    try:
        return name.decode()
    except (AttributeError, UnicodeDecodeError):
        return name


def _options(retries, max_answer_bytes):
    """Channel options: its own connection, retries, a limit of answers."""
    options = [
        ("grpc.max_receive_message_length", max_answer_bytes),
        # Channels of one address would share a connection.
        ("grpc.use_local_subchannel_pool", 1),
        # Attempts that a dead connection makes in the meantime are refused.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    if not retries:
        return [*options, ("grpc.enable_retries", 0)]
    policy = {
        "maxAttempts": retries + 1,
        "initialBackoff": "0.2s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    service = {"methodConfig": [{"name": [{}], "retryPolicy": policy}]}
    return [*options, ("grpc.service_config", json.dumps(service))]


def read(path, max_bytes=16 * 2**20):
    """The images of a file, as `Client.predict` takes them.

    Args:
        path: A PNG or JPEG file, or a .npy file of finite floats whose first
            dimension is the batch.
        max_bytes: Largest size of a file that is read.

    Raises:
        RequestError: If it cannot be read, is larger, or is something else.
    """
    content, is_array = payloads.read(path, max_bytes)
    if not is_array:
        return [content]
    images = np.empty(0)
    with contextlib.suppress(ValueError), np.errstate(over="ignore"):
        kind, columns_first, shape, start = payloads.array_header(content)
        values = np.frombuffer(content, kind, offset=start)
        order = "F" if columns_first else "C"
        images = values.reshape(shape, order=order).astype(np.float32)
    if not images.size or not np.isfinite(images).all():
        raise RequestError(
            f"{path} holds no batch of images; expected a .npy file of finite "
            "floats, [batch, height, width, channels]."
        )
    return images


def main():
    """Classifies the files of the command line, each in a request."""
    payloads.classify_files(
        "grpc_client", __doc__, "address", "localhost:8500", Client, read
    )


if __name__ == "__main__":
    main()
