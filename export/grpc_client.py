"""Asks a model that TF Serving serves, over gRPC.

    python grpc_client.py --model=classifier digit.png batch.npy

Needs `pip install tensorflow-serving-api`, which brings TensorFlow's wheel: its
import takes seconds and writes lines of its own to standard error.
PNG and JPEG files go to the signature `image_bytes`, as they are; .npy files
with floats of shape [batch, height, width, channels], in the model's pixel
range, go to `serving_default`. Prints each image's class and its probability.
This file stands alone: copy it, or import it:

    client = grpc_client.Client("localhost:8500", "classifier")
    client.predict([open("digit.png", "rb").read()])
"""

import argparse
import json
import pathlib
import sys

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

# gRPC itself allows no more attempts than five.
_MOST_RETRIES = 4


class RequestError(RuntimeError):
    """Images that got no prediction: one sentence that says why."""


class Client:
    """A channel to one model; threads may share it.

    Args:
        address: The server's gRPC address, HOST:PORT.
        model: The name under which the server serves the model.
        timeout: Seconds for a call, its retries included.
        retries: How often a call is repeated, with growing pauses, when the
            server cannot be reached or says that it is unavailable; 0 to 4.
    """

    def __init__(
        self,
        address="localhost:8500",
        model="classifier",
        *,
        timeout=10.0,
        retries=3,
    ):
        if timeout <= 0 or not 0 <= retries <= _MOST_RETRIES:
            raise RequestError(
                f"Got a timeout of {timeout} seconds and {retries} retries; "
                f"expected a timeout above 0 and 0 to {_MOST_RETRIES} retries."
            )
        self._address = address
        self._model = model
        self._timeout = timeout
        self._retries = retries
        # Plain text: for TLS, grpc.secure_channel(address,
        # grpc.ssl_channel_credentials(), options) takes the same options.
        self._channel = grpc.insecure_channel(address, _options(retries))
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(
            self._channel
        )

    def close(self):
        """Closes the channel; the client cannot be used after it."""
        self._channel.close()

    def predict(self, images):
        """Classifies images.

        Args:
            images: A list with the bytes of PNG or JPEG files, or an array
                `[batch, height, width, channels]`, sent as float32.

        Returns:
            A dict for each image: `class_name`, `class_index`,
            `probabilities` and `logits`.

        Raises:
            RequestError: If there is no answer, or a refusal.
        """
        if not len(images):
            raise RequestError("Got no images; expected at least one.")
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._model
        if isinstance(images[0], bytes):
            request.model_spec.signature_name = "image_bytes"
            tensor = tf.make_tensor_proto(images, tf.string)
            request.inputs["image_bytes"].CopyFrom(tensor)
        else:
            request.model_spec.signature_name = "serving_default"
            tensor = tf.make_tensor_proto(np.asarray(images, np.float32))
            request.inputs["images"].CopyFrom(tensor)
        try:
            response = self._stub.Predict(request, timeout=self._timeout)
        except grpc.RpcError as error:
            said = " ".join((error.details() or "nothing").split())[:300]
            raise RequestError(self._refusal(error.code(), said)) from None
        columns = {
            name: tf.make_ndarray(tensor)
            for name, tensor in response.outputs.items()
        }
        return [
            dict(zip(columns, row, strict=True))
            for row in zip(*columns.values(), strict=True)
        ]

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
        if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
            return (
                f"The request is too large for the server at {self._address}; "
                f"send fewer or smaller images (it said: {said})."
            )
        return (
            f"The server at {self._address} refused the images for model "
            f"{self._model!r} ({code.name}, it said: {said})."
        )


def _options(retries):
    """Channel options: gRPC's own retries, and answers of any size."""
    options = [
        ("grpc.max_receive_message_length", -1),
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
        path: A PNG or JPEG file, or a .npy file of floats whose first
            dimension is the batch.
        max_bytes: Largest size of a file that is read.

    Raises:
        RequestError: If it cannot be read, is larger, or is something else.
    """
    path = pathlib.Path(path)
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise RequestError(
                f"{path} has {size:,} bytes; expected at most {max_bytes:,}: "
                "make the image smaller, or raise the limit."
            )
        content = path.read_bytes()
    except OSError as error:
        raise RequestError(
            f"{path} cannot be read: {error.strerror}."
        ) from None
    if content.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        return [content]
    if not content.startswith(b"\x93NUMPY"):
        raise RequestError(
            f"{path} holds no PNG, JPEG or .npy; expected one of them."
        )
    try:
        images = np.load(path, allow_pickle=False)
    except (EOFError, ValueError):
        images = np.empty(0)
    if images.dtype.kind != "f" or images.ndim < 2 or not images.size:
        raise RequestError(
            f"{path} holds no batch of images; expected a .npy file of floats, "
            "[batch, height, width, channels]."
        )
    return images


def describe(path, predictions):
    """A line for each image: its class and the probability of that class."""
    lines = []
    for place, prediction in enumerate(predictions):
        try:
            name = prediction["class_name"].decode()
            share = prediction["probabilities"][prediction["class_index"]]
        except KeyError:
            raise RequestError(
                "The model's answer lacks class_name, class_index or "
                "probabilities; expected a model that mart-export wrote."
            ) from None
        which = f"[{place}]" if len(predictions) > 1 else ""
        lines.append(f"{path}{which}: {name} {share:.4f}")
    return lines


def main():
    """Classifies the files of the command line, each in a request."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", help="PNG, JPEG or .npy files")
    parser.add_argument("--address", default="localhost:8500")
    parser.add_argument("--model", default="classifier")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds")
    parser.add_argument("--retries", type=int, default=3)
    parser.add_argument("--max_bytes", type=int, default=16 * 2**20)
    flags = parser.parse_args()
    try:
        client = Client(
            flags.address,
            flags.model,
            timeout=flags.timeout,
            retries=flags.retries,
        )
        for path in flags.files:
            predictions = client.predict(read(path, flags.max_bytes))
            print("\n".join(describe(path, predictions)))
    except RequestError as error:
        sys.exit(f"grpc_client: {error}")


if __name__ == "__main__":
    main()
