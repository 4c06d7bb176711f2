"""Triton's configuration against its schema, and against what is exported.

Triton itself was not run: nothing that can be installed here brings it along.
"""

import re

from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory
from google.protobuf import text_format
import keras
import loopback
import pytest
import tensorflow as tf

import mart_tf
from mart_tf.serving import verification

# Of Triton's public model_config.proto, what the file says anything of.
_SCHEMA = """
name: "model_config.proto" package: "inference" syntax: "proto3"
enum_type {
  name: "DataType"
  value { name: "TYPE_INVALID" number: 0 }
  value { name: "TYPE_INT64" number: 9 }
  value { name: "TYPE_FP32" number: 11 }
  value { name: "TYPE_STRING" number: 13 }
}
message_type {
  name: "ModelTensorReshape"
  field { name: "shape" number: 1 type: TYPE_INT64 label: LABEL_REPEATED }
}
message_type {
  name: "ModelInput"
  field { name: "name" number: 1 type: TYPE_STRING }
  field { name: "data_type" number: 2 type: TYPE_ENUM
          type_name: ".inference.DataType" }
  field { name: "dims" number: 4 type: TYPE_INT64 label: LABEL_REPEATED }
  field { name: "reshape" number: 5 type: TYPE_MESSAGE
          type_name: ".inference.ModelTensorReshape" }
}
message_type {
  name: "ModelOutput"
  field { name: "name" number: 1 type: TYPE_STRING }
  field { name: "data_type" number: 2 type: TYPE_ENUM
          type_name: ".inference.DataType" }
  field { name: "dims" number: 3 type: TYPE_INT64 label: LABEL_REPEATED }
  field { name: "reshape" number: 5 type: TYPE_MESSAGE
          type_name: ".inference.ModelTensorReshape" }
}
message_type {
  name: "ModelConfig"
  field { name: "name" number: 1 type: TYPE_STRING }
  field { name: "platform" number: 2 type: TYPE_STRING }
  field { name: "max_batch_size" number: 4 type: TYPE_INT32 }
  field { name: "input" number: 5 type: TYPE_MESSAGE label: LABEL_REPEATED
          type_name: ".inference.ModelInput" }
  field { name: "output" number: 6 type: TYPE_MESSAGE label: LABEL_REPEATED
          type_name: ".inference.ModelOutput" }
}
"""
_TEXT = (loopback.KIT / "triton" / "config.pbtxt").read_text(encoding="utf-8")
_TYPES = {9: tf.int64, 11: tf.float32, 13: tf.string}


@pytest.fixture(scope="module")
def message():
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto()
    pool.Add(text_format.Parse(_SCHEMA, file))
    found = pool.FindMessageTypeByName("inference.ModelConfig")
    return message_factory.GetMessageClass(found)


def _shape(tensor):
    """A tensor's shape in the model, without the batch."""
    if tensor.HasField("reshape"):
        return list(tensor.reshape.shape)
    return list(tensor.dims)


def test_says_what_the_signature_of_an_export_takes_and_gives(
    message, tmp_path
):
    config = text_format.Parse(_TEXT, message())
    network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    network.add(keras.layers.Dense(10))
    version = mart_tf.export_saved_model(
        network, tmp_path, pixel_range=(0, 1), verify=False
    )
    signature = verification.signature(version)
    for said, tensors in (
        (config.input, signature.inputs),
        (config.output, signature.outputs),
    ):
        assert {each.name for each in said} == set(tensors)
        for each in said:
            info = tensors[each.name]
            assert _TYPES[each.data_type] == tf.dtypes.as_dtype(info.dtype)
            batch, *sizes = [dim.size for dim in info.tensor_shape.dim]
            assert (batch, sizes) == (-1, _shape(each))


def test_is_the_model_that_the_kit_serves(message):
    config = text_format.Parse(_TEXT, message())
    assert config.name == "classifier"
    assert config.platform == "tensorflow_savedmodel"
    assert config.max_batch_size > 1
    assert re.search(r"^# CHANGE: dims\b", _TEXT, re.MULTILINE)


def test_negative_control_a_misspelt_field(message):
    with pytest.raises(text_format.ParseError, match="no field named"):
        text_format.Parse(_TEXT.replace("dims:", "dim:"), message())
