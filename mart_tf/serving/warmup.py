"""Warm-up records: requests that TF Serving replays when it loads a version.

They lie in `assets.extra/tf_serving_warmup_requests`, a TFRecord file of
`PredictionLog` messages. The messages are declared here as far as they are
used; a field that holds a message of TensorFlow's own is declared as bytes,
which is the same on the wire, so that TF Serving's package is not needed.
"""

import functools
import pathlib

from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory
import numpy as np
import tensorflow as tf

from mart_tf.serving import endpoints

FILE = "assets.extra/tf_serving_warmup_requests"

_TENSOR = type(tf.make_tensor_proto(0))

# The most records that a server takes.
MOST = 1000

# From tensorflow_serving/apis/*.proto: fields as (name, number, type), the type
# a scalar's or a message's name, with a star where the field is repeated.
_MESSAGES = {
    "ModelSpec": [("name", 1, "string"), ("signature_name", 3, "string")],
    # An entry of the map of inputs.
    "Pair": [("key", 1, "string"), ("value", 2, "bytes")],
    "PredictRequest": [("model_spec", 1, "ModelSpec"), ("inputs", 2, "Pair*")],
    "PredictLog": [("request", 1, "PredictRequest")],
    "ExampleList": [("examples", 1, "bytes*")],
    "Input": [("example_list", 1, "ExampleList")],
    "ClassificationRequest": [
        ("model_spec", 1, "ModelSpec"),
        ("input", 2, "Input"),
    ],
    "ClassifyLog": [("request", 1, "ClassificationRequest")],
    "PredictionLog": [
        ("classify_log", 2, "ClassifyLog"),
        ("predict_log", 6, "PredictLog"),
    ],
}
_PACKAGE = "mart_tf.warmup"


def write(directory, model_name, requests):
    """Writes the records of a version.

    Args:
        directory: The version's directory.
        model_name: The name that it is served under; a server does not
            compare it.
        requests: Pairs of a signature's name and its input, an array.

    Returns:
        The number of records.
    """
    path = pathlib.Path(directory, FILE)
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, batch in requests:
            log = _log(model_name, signature, batch)
            writer.write(log.SerializeToString(deterministic=True))
    return len(requests)


def read(directory):
    """The records of a version, as a server finds them.

    Returns:
        Pairs as `write` takes them; none where there is no file.
    """
    path = pathlib.Path(directory, FILE)
    if not path.exists():
        return []
    prediction_log = _message("PredictionLog")
    return [
        _request(prediction_log.FromString(record))
        for record in tf.data.TFRecordDataset([str(path)]).as_numpy_iterator()
    ]


def _request(log):
    if log.HasField("classify_log"):
        request = log.classify_log.request
        batch = np.array([*request.input.example_list.examples], object)
    else:
        request = log.predict_log.request
        [pair] = request.inputs
        batch = tf.make_ndarray(_TENSOR.FromString(pair.value))
    return request.model_spec.signature_name, batch


def _log(model_name, signature, batch):
    log = _message("PredictionLog")()
    if signature == endpoints.CLASSIFY:
        request = log.classify_log.request
        request.input.example_list.examples.extend(batch.tolist())
    else:
        request = log.predict_log.request
        tensor = tf.make_tensor_proto(batch)
        request.inputs.add(
            key=endpoints.INPUTS[signature], value=tensor.SerializeToString()
        )
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature
    return log


def _message(name):
    """The class of a message of `_MESSAGES`."""
    return message_factory.GetMessageClass(
        _pool().FindMessageTypeByName(f"{_PACKAGE}.{name}")
    )


@functools.cache
def _pool():
    declared = descriptor_pb2.FileDescriptorProto(
        name="mart_tf/warmup.proto", package=_PACKAGE, syntax="proto3"
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in _MESSAGES.items():
        message = declared.message_type.add(name=name)
        for field, number, kind in fields:
            repeated = kind.endswith("*")
            kind = kind.rstrip("*")
            added = message.field.add(
                name=field,
                number=number,
                label=kinds.LABEL_REPEATED
                if repeated
                else kinds.LABEL_OPTIONAL,
            )
            if kind in _MESSAGES:
                added.type = kinds.TYPE_MESSAGE
                added.type_name = f".{_PACKAGE}.{kind}"
            else:
                added.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    # Not the pool that TF Serving's own package, if imported, declares in.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(declared)
    return pool
