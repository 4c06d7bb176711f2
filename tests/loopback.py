"""A loopback server for tests of the serving kit. It is not TF Serving.

TF Serving cannot be installed where the tests run. This stands in for it: the
public gRPC stubs and a small REST endpoint, in this process, over a real
exported version on TensorFlow's C++ runtime (`mart_tf.serving.c_api`). It
follows TF Serving's published REST API, its status codes and its messages as
far as the kit's clients meet them, and has nothing of its batching, its
polling for versions or its speed.
"""

import base64
import concurrent.futures
import contextlib
import http.server
import importlib
import json
import pathlib
import re
import sys
import threading
import time
import urllib.parse

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

from mart_tf.serving import c_api
from mart_tf.serving import verification

KIT = pathlib.Path(__file__).parents[1] / "export"

# How TF Serving's REST endpoint says the status of a call; else 500.
_HTTP = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_PREDICT = re.compile(r"/v1/models/([^/:]+):predict")


def kit_module(name):
    """A client of `export/`, which is no package and stays out of sys.path."""
    sys.path.insert(0, str(KIT))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(KIT))


class Model:
    """An exported version, each of its signatures on the C++ runtime.

    Attributes:
        seconds: What each run of the runtime took.
        peers: The connections that gRPC calls came by.
        failures: The statuses of the next calls, which fail with them.
        delay: Seconds that a call waits before it is run.
    """

    def __init__(self, version, name="classifier"):
        self.name = name
        self.seconds = []
        self.peers = set()
        self.failures = []
        self.delay = 0.0
        content = pathlib.Path(version, "saved_model.pb").read_bytes()
        graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
        self.signatures = {
            name: signature
            for name, signature in graph.signature_def.items()
            if not name.startswith("__")
        }
        self._sessions = {
            name: c_api.Session(version, **verification.tensors(signature))
            for name, signature in self.signatures.items()
        }

    def close(self):
        for session in self._sessions.values():
            session.close()

    def signature(self, model, name):
        """A signature's inputs and outputs, as TF Serving looks them up."""
        if self.failures:
            raise c_api.StatusError(self.failures.pop(), "Made for a test.")
        if model != self.name:
            raise c_api.StatusError(
                "NOT_FOUND", f"Servable not found for request: Latest({model})"
            )
        if name not in self.signatures:
            sentence = f'Serving signature key "{name}" not found.'
            raise c_api.StatusError("FAILED_PRECONDITION", sentence)
        return self.signatures[name]

    def run(self, signature, arrays):
        """The outputs of a signature, a dict of arrays."""
        expected = set(self.signatures[signature].inputs)
        if set(arrays) != expected:
            raise _invalid(
                f"input size does not match signature: got {set(arrays)}, "
                f"expected {expected}"
            )
        time.sleep(self.delay)
        started = time.perf_counter()
        outputs = self._sessions[signature].run(arrays)
        self.seconds.append(time.perf_counter() - started)
        return outputs


class _Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, model):
        self._model = model

    def Predict(self, request, context):
        self._model.peers.add(context.peer())
        spec = request.model_spec
        name = spec.signature_name or "serving_default"
        try:
            self._model.signature(spec.name, name)
            arrays = {
                key: tf.make_ndarray(tensor)
                for key, tensor in request.inputs.items()
            }
            outputs = self._model.run(name, arrays)
        except c_api.StatusError as error:
            context.abort(getattr(grpc.StatusCode, error.code), str(error))
        response = predict_pb2.PredictResponse()
        for key, array in outputs.items():
            response.outputs[key].CopyFrom(tf.make_tensor_proto(array))
        return response


class _Rest(http.server.ThreadingHTTPServer):
    # Eight clients at once overflow the usual five; the others lose a second.
    request_queue_size = 64


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A small answer must not wait for the acknowledgement of its header.
    disable_nagle_algorithm = True
    model = None
    max_bytes = -1

    def log_message(self, *unused):
        """Says nothing: the tests look at the answers."""

    def do_GET(self):
        if self.path != f"/v1/models/{self.model.name}":
            self._answer(404, {"error": f"Could not find {self.path}"})
            return
        version = {"version": "1", "state": "AVAILABLE"}
        self._answer(200, {"model_version_status": [version]})

    def do_POST(self):
        size = int(self.headers["Content-Length"])
        if 0 <= self.max_bytes < size:
            # Not TF Serving, which has no limit, but a proxy before it.
            self.close_connection = True
            self._answer(413, {"error": "Payload Too Large"})
            return
        body = self.rfile.read(size)
        try:
            self._answer(200, self._predict(body))
        except c_api.StatusError as error:
            self._answer(_HTTP.get(error.code, 500), {"error": str(error)})

    def _predict(self, body):
        match = _PREDICT.fullmatch(self.path)
        if not match:
            raise _invalid(f"Malformed request: POST {self.path}")
        try:
            request = json.loads(body)
        except ValueError:
            raise _invalid("JSON Parse error: Invalid value.") from None
        name = request.get("signature_name", "serving_default")
        model = urllib.parse.unquote(match[1])
        signature = self.model.signature(model, name)
        rows = "instances" in request
        if rows == ("inputs" in request):
            raise _invalid("expected either 'instances' or 'inputs'")
        arrays = {
            key: _array(values, signature.inputs[key])
            for key, values in _columns(request, signature).items()
            if key in signature.inputs
        }
        outputs = {
            key: _values(array)
            for key, array in self.model.run(name, arrays).items()
        }
        if not rows:
            return {"outputs": _bare(outputs)}
        return {
            "predictions": [
                _bare(dict(zip(outputs, row, strict=True)))
                for row in zip(*outputs.values(), strict=True)
            ]
        }

    def _answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _invalid(message):
    return c_api.StatusError("INVALID_ARGUMENT", message)


def _is_bytes(value):
    return isinstance(value, dict) and set(value) == {"b64"}


def _columns(request, signature):
    """The inputs by name, of a request in row or in columnar format."""
    rows = "instances" in request
    values = request["instances" if rows else "inputs"]
    if rows and (not isinstance(values, list) or not values):
        raise _invalid("'instances' is no list of values")
    one = values[0] if rows else values
    if not isinstance(one, dict) or _is_bytes(one):
        # A signature with one input needs no names.
        [name] = signature.inputs
        return {name: values}
    if rows:
        return {name: [row[name] for row in values] for name in one}
    return values


def _array(values, info):
    """JSON values as an array of the type that a signature asks for."""
    kind = tf.dtypes.as_dtype(info.dtype)
    try:
        if kind != tf.string:
            return np.asarray(values, kind.as_numpy_dtype)
        decoded = [
            base64.b64decode(value["b64"], validate=True)
            if _is_bytes(value)
            else value.encode()
            for value in values
        ]
    except (AttributeError, TypeError, ValueError):
        raise _invalid(
            f"Failed to process element of 'inputs'; expected {kind.name}"
        ) from None
    return np.array(decoded, object)


def _values(array):
    """An output as JSON values; none of the kit's ends in `_bytes`."""
    if array.dtype == object:
        return np.vectorize(bytes.decode, [object])(array).tolist()
    return array.tolist()


def _bare(outputs):
    """A single output goes without its name."""
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


@contextlib.contextmanager
def serve(model, max_bytes=-1):
    """Serves a `Model` on two free ports of this machine.

    Args:
        model: The `Model`.
        max_bytes: Largest request, as a proxy may limit it; -1: any.

    Yields:
        The REST address, "http://HOST:PORT", and the gRPC one, "HOST:PORT".
    """
    handler = type(
        "Handler", (_Handler,), {"model": model, "max_bytes": max_bytes}
    )
    rest = _Rest(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=rest.serve_forever, args=(0.05,))
    thread.start()
    service = grpc.server(
        concurrent.futures.ThreadPoolExecutor(8),
        options=[("grpc.max_receive_message_length", max_bytes)],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _Service(model), service
    )
    port = service.add_insecure_port("127.0.0.1:0")
    service.start()
    try:
        yield f"http://127.0.0.1:{rest.server_port}", f"127.0.0.1:{port}"
    finally:
        service.stop(0).wait()
        rest.shutdown()
        thread.join()
        rest.server_close()
