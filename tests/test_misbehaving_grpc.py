"""The gRPC client against servers that misbehave: a sentence, and an end."""

import concurrent.futures
import contextlib
import json
import struct

import grpc
import loopback
import misbehaving
from misbehaving import http2
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2

grpc_client = loopback.kit_module("grpc_client")

_LATE = "within 0.5 seconds; send fewer images"
_LONG = "is longer than 16,777,216 bytes; send fewer images at once"
_LOST = "is the server running, and is this its gRPC port?"
_REFUSED = "refused the images for model 'classifier' ("
_NO_CLASS = "expected the place of a class"
_SHARES = "expected numbers of 0 to 1, one for each class"
_HEADERS = {":status": "200", "content-type": "application/grpc"}

says = misbehaving.says


def answer(**changes):
    """A PredictResponse to two images; None leaves an output out."""
    outputs = {
        "logits": np.array([[0, 2, 1]] * 2, np.float32),
        "probabilities": np.array([[0.1, 0.6, 0.3]] * 2, np.float32),
        "class_index": np.array([1, 1]),
        "class_name": np.array([b"one", b"one"]),
        **changes,
    }
    response = predict_pb2.PredictResponse()
    for key, values in outputs.items():
        if isinstance(values, np.ndarray):
            values = tf.make_tensor_proto(values)
        if values is not None:
            response.outputs[key].CopyFrom(values)
    return response.SerializeToString()


def tensor(kind, *shape, **values):
    """A tensor that claims a shape, whatever its values."""
    one = tensor_pb2.TensorProto(dtype=kind.as_datatype_enum, **values)
    for size in shape:
        one.tensor_shape.dim.add(size=size)
    return one


def floats(*rows):
    return np.array(rows, np.float32)


def message(content, compressed=0):
    """A message of gRPC's as it goes over the wire."""
    return struct.pack(">BI", compressed, len(content)) + content


def ends(**trailers):
    """An answer that is but its last headers."""
    return says(http2({**_HEADERS, **trailers}))


_FIELDS = misbehaving.frame(9, b"\x00\x01a\x01b", 0, 1) * 200
_DATA = http2(_HEADERS, message(answer()), ends=False)
SERVERS = {
    "silence": (says(b""), _LATE),
    "closes": (misbehaving.says_and_closes(b""), _LOST),
    "resets": (misbehaving.resets, _LOST),
    "a byte at a time": (misbehaving.trickles(_DATA), _LATE),
    "settings without end": (
        misbehaving.repeats(b"", misbehaving.frame(4) * 100, 0.01),
        _LATE,
    ),
    "headers without end": (
        misbehaving.repeats(misbehaving.frame(1, b"", 0, 1), _FIELDS),
        "send fewer images",
    ),
    "no last headers": (says(_DATA), _LATE),
    "half a message": (
        says(http2(_HEADERS, message(answer())[:50], False)),
        _LATE,
    ),
    "a message of 3 GiB": (
        says(http2(_HEADERS, struct.pack(">BI", 0, 3 * 2**30), False)),
        _LONG,
    ),
    "a message of 4 GiB": (
        says(http2(_HEADERS, b"\x00\xff\xff\xff\xff" + bytes(9000), False)),
        _LONG,
    ),
    "no message": (ends(**{"grpc-status": "0"}), "is no PredictResponse"),
    "status 99": (ends(**{"grpc-status": "99"}), _REFUSED),
    "status -1": (ends(**{"grpc-status": "-1"}), _REFUSED),
    "status x": (ends(**{"grpc-status": "x"}), _REFUSED),
    "no status": (ends(), _REFUSED),
    "a page": (says(http2({":status": "404"}, b"<html>")), _REFUSED),
    "elsewhere": (says(http2({":status": "302", "location": "/"})), _REFUSED),
    "busy": (says(http2({":status": "503"}, b"")), _LOST),
    "unsaid compression": (
        says(http2(_HEADERS, message(answer(), 1), False)),
        _REFUSED,
    ),
    "escape codes": (
        ends(**{"grpc-status": "13", "grpc-message": "%1B[2J%0A%FF%E2%80%AE"}),
        r"\x1b[2J",
    ),
    "a long error": (
        ends(**{"grpc-status": "3", "grpc-message": "no " * 40}),
        "it said: no no no",
    ),
}
ANSWERS = {
    "no protocol buffer": (b"\xff" * 50, "is no PredictResponse"),
    "a page": (b"<html>", "is no PredictResponse"),
    "cut off": (answer()[:-3], "is no PredictResponse"),
    "more than 16 MiB": (answer() + bytes(2**24), _LONG),
    "empty": (b"", "it has no probabilities, expected numbers"),
    "no name": (answer(class_name=None), "it has no class_name, expected a"),
    "fewer": (answer(logits=floats([1, 2, 3])), "it has 1 rows of logits"),
    "more": (
        answer(class_index=np.array([1, 1, 1])),
        "it has 3 rows of class_index, expected 2",
    ),
    "unequal columns": (
        answer(logits=floats([1, 2], [3, 4])),
        "logits of image 0 is [1.0, 2.0], expected finite numbers, one for eac",
    ),
    "no classes": (
        answer(probabilities=np.zeros((2, 0), np.float32)),
        f"probabilities of image 0 is [], {_SHARES}",
    ),
    "a row": (
        answer(probabilities=np.zeros(2, np.float32)),
        f"probabilities of image 0 is 0.0, {_SHARES}",
    ),
    "a cube": (
        answer(probabilities=np.zeros((2, 3, 1), np.float32)),
        f"type 1 and shape [2, 3, 1], {_SHARES}",
    ),
    "a scalar": (answer(class_index=np.array(1)), "and shape [], expected the"),
    "doubles": (answer(probabilities=np.zeros((2, 3))), "of type 2 and shape"),
    "names as scores": (
        answer(probabilities=np.array([[b"1", b"0", b"0"]] * 2)),
        f"probabilities of image 0 is [b'1', b'0', b'0'], {_SHARES}",
    ),
    "scores as names": (
        answer(class_name=floats(1, 2)),
        "class_name of image 0 is 1.0, expected a text",
    ),
    "NaN": (
        answer(logits=floats([1, 2, 3], [1, np.nan, 3])),
        "logits of image 1 is [1.0, nan, 3.0], expected finite numbers",
    ),
    "infinity": (
        answer(probabilities=floats([0, 0, 1], [0, np.inf, 0])),
        f"probabilities of image 1 is [0.0, inf, 0.0], {_SHARES}",
    ),
    "a share of 7": (
        answer(probabilities=floats([0, 0, 1], [0, 7, 0])),
        f"probabilities of image 1 is [0.0, 7.0, 0.0], {_SHARES}",
    ),
    "a class below 0": (answer(class_index=np.array([1, -1])), _NO_CLASS),
    "a class too many": (answer(class_index=np.array([1, 3])), _NO_CLASS),
    "a class of 0.5": (answer(class_index=floats(1, 0.5)), _NO_CLASS),
    "no UTF-8": (
        answer(class_name=np.array([b"one", b"\xe9\xff"])),
        r"class_name of image 1 is b'\xe9\xff', expected a text",
    ),
    "a shape of 4 TiB": (
        answer(logits=tensor(tf.float32, 2, 2**40, float_val=[1.0])),
        "logits is 1 values of type 1 and shape [2, 1099511627776], expected",
    ),
    "a shape that is negative": (
        answer(logits=tensor(tf.float32, -1, -1, float_val=[1.0])),
        "logits is 1 values of type 1 and shape [-1, -1], expected",
    ),
    "a shape of a million": (
        answer(logits=tensor(tf.float32, *[2**62] * 10**6)),
        "logits is 0 values of type 1 and shape [46116",
    ),
    "half a float": (
        answer(logits=tensor(tf.float32, 2, 3, tensor_content=bytes(23))),
        "logits is 0 values of type 1 and shape [2, 3], expected",
    ),
    "an unknown type": (
        answer(logits=tensor_pb2.TensorProto(dtype=23)),
        "logits is 0 values of type 23 and shape [], expected",
    ),
}
# Odd, and still an answer: what is printed of the second image.
PRINTED = {
    "escape codes": (
        answer(class_name=np.array([b"a", b"\x1b[2J\n\xc2\x9b"])),
        r"\x1b[2J\n\x9b 0.6000",
    ),
    "further outputs": (answer(more=floats(1)), "one 0.6000"),
    "values without their bytes": (
        answer(class_index=tensor(tf.int64, 2, int64_val=[0, 2])),
        "one 0.3000",
    ),
}


@contextlib.contextmanager
def serving(content, compression=None):
    """A gRPC server that answers each call with some bytes."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(lambda *call: content)

    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(2),
        options=[("grpc.max_send_message_length", -1)],
        compression=compression,
    )
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A file of two images."""
    return misbehaving.write_images(tmp_path_factory.mktemp("images"))


def ask(address, images, timeout=10):
    return misbehaving.call(
        grpc_client,
        f"--address={address}",
        *(f"--timeout={timeout}", "--retries=0", images),
    )


@pytest.mark.parametrize("name", SERVERS)
def test_servers(name, images):
    misbehave, part = SERVERS[name]
    with misbehaving.listening(misbehave, misbehaving.reads_http2) as address:
        sentence, lines = ask(address, images, timeout=0.5)
    misbehaving.assert_sentence(sentence, part)
    assert not lines


def test_headers_that_become_too_long(images):
    # In half a second they may, or may not.
    misbehave, _ = SERVERS["headers without end"]
    with misbehaving.listening(misbehave, misbehaving.reads_http2) as address:
        sentence, lines = ask(address, images, timeout=60)
    misbehaving.assert_sentence(sentence, _LONG)
    assert not lines


@pytest.mark.parametrize(
    "content", [misbehaving.http(b"{}"), b"\x15\x03\x01\x00\x02\x02\x16"]
)
def test_no_http2(content, images):
    with misbehaving.listening(
        says(content), misbehaving.reads_nothing
    ) as address:
        sentence, _ = ask(address, images, timeout=2)
    misbehaving.assert_sentence(sentence, "No prediction from 127.0.0.1:")


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(name, images):
    content, part = ANSWERS[name]
    with serving(content) as address:
        sentence, lines = ask(address, images)
    misbehaving.assert_sentence(sentence, part)
    assert not lines


@pytest.mark.parametrize("name", PRINTED)
def test_answers_that_are_printed(name, images):
    content, line = PRINTED[name]
    with serving(content) as address:
        status, lines = ask(address, images)
    assert status == 0
    assert lines[1].split(": ", 1)[1] == line


# Asks each server; prints what came of it, and the memory held so far.
_ASKS = """
import json, resource, sys, time
_, folder, images, *addresses = sys.argv
sys.path.insert(0, folder)
import grpc_client
for address in addresses:
    started = time.monotonic()
    try:
        grpc_client.Client(address, retries=0).predict([b"", b""])
        said = ""
    except grpc_client.RequestError as error:
        said = str(error)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps([said, time.monotonic() - started, peak]))
sys.argv = ["grpc_client", f"--address={address}", images]
grpc_client.main()
"""


def test_memory(images):
    """One process, since its start takes seconds: the good answer first."""
    gzip = grpc.Compression.Gzip
    empty = tensor_pb2.TensorProto(variant_val=[{}] * 2**20)
    with contextlib.ExitStack() as servers:
        addresses = [
            servers.enter_context(serving(content, compression))
            for content, compression in (
                (answer(), None),
                (answer() + bytes(2**27), None),
                (answer() + bytes(2**27), gzip),
                (answer(logits=empty), None),
                (ANSWERS["a shape of 4 TiB"][0], None),
                (ANSWERS["no protocol buffer"][0], None),
            )
        ]
        done, _ = misbehaving.run("-c", _ASKS, loopback.KIT, images, *addresses)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    # TensorFlow's own lines come before it.
    start = done.stderr.index("grpc_client: ")
    misbehaving.assert_sentence(done.stderr[start:], "is no Predict")
    good, *others = map(json.loads, done.stdout.splitlines())
    assert good[0] == ""
    parts = [_LONG, _LONG, "logits is 0 va", "logits is 1 va", "is no Predict"]
    for (said, seconds, peak), part in zip(others, parts, strict=True):
        assert part in said
        assert seconds < 30
        assert peak < good[2] + 150
