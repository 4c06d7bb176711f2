"""Asks a model that TF Serving serves, over REST, with the standard library.

    python rest_client.py --model=classifier digit.png batch.npy

PNG and JPEG files go to the signature `image_bytes`, as they are; .npy files
with floats of shape [batch, height, width, channels], in the model's pixel
range, go to `serving_default`. Prints each image's class and its probability.
This file stands alone: copy it, or import it:

    client = rest_client.Client("http://localhost:8501", "classifier")
    client.predict([open("digit.png", "rb").read()])
"""

import argparse
import ast
import base64
import http.client
import json
import math
import pathlib
import random
import struct
import sys
import time
import urllib.parse

# What the server answers while it is too busy, or not ready.
_UNAVAILABLE = 503
_TIMED_OUT = (408, 504)
_TOO_LARGE = (413, 429)


class RequestError(RuntimeError):
    """Images that got no prediction: one sentence that says why."""


class Client:
    """A connection to one model, kept open; one for each thread.

    Args:
        url: The server's REST address, http or https.
        model: The name under which the server serves the model.
        timeout: Seconds for a call, its retries included.
        retries: How often a call is repeated, with growing pauses, when the
            server cannot be reached or says that it is unavailable.
    """

    def __init__(
        self,
        url="http://localhost:8501",
        model="classifier",
        *,
        timeout=10.0,
        retries=3,
    ):
        if timeout <= 0 or retries < 0:
            raise RequestError(
                f"Got a timeout of {timeout} seconds and {retries} retries; "
                "expected a timeout above 0 and retries of 0 or more."
            )
        self._url = url.rstrip("/")
        self._model = model
        self._timeout = timeout
        self._retries = retries
        parts = urllib.parse.urlsplit(self._url)
        kinds = {
            "http": http.client.HTTPConnection,
            "https": http.client.HTTPSConnection,
        }
        try:
            if not parts.hostname:
                raise ValueError(url)
            self._connection = kinds[parts.scheme](parts.hostname, parts.port)
        except (KeyError, ValueError):
            raise RequestError(
                f"The address {url!r} is not one of a REST server; expected "
                "http://HOST:PORT."
            ) from None
        name = urllib.parse.quote(model, safe="")
        self._path = f"{parts.path}/v1/models/{name}:predict"

    def close(self):
        """Gives the connection back; the next call opens another."""
        self._connection.close()

    def predict(self, images):
        """Classifies images.

        Args:
            images: A list with the bytes of PNG or JPEG files, or nested lists
                of numbers, `[batch, height, width, channels]`.

        Returns:
            A dict for each image: `class_name`, `class_index`,
            `probabilities` and `logits`.

        Raises:
            RequestError: If there is no answer, or a refusal.
        """
        if not len(images):
            raise RequestError("Got no images; expected at least one.")
        request = {"signature_name": "serving_default", "instances": images}
        if isinstance(images[0], bytes):
            request = {
                "signature_name": "image_bytes",
                "instances": [
                    {"b64": base64.b64encode(image).decode()}
                    for image in images
                ],
            }
        status, content = self._post(json.dumps(request).encode())
        try:
            answer = json.loads(content)
            if status == 200:
                return answer["predictions"]
            said = answer["error"]
        except (KeyError, TypeError, ValueError):
            said = content.decode(errors="replace") or "nothing"
        raise RequestError(self._refusal(status, " ".join(said.split())[:300]))

    def _post(self, body):
        """The status and the content of an answer other than 503."""
        deadline = time.monotonic() + self._timeout
        for retry in range(self._retries + 1):
            try:
                status, content = self._exchange(body, deadline)
            except TimeoutError:
                self.close()
                raise RequestError(self._late()) from None
            except OSError as error:
                self.close()
                reason = str(error) or type(error).__name__
            except http.client.HTTPException:
                self.close()
                reason = "its answer is no HTTP"
            else:
                if status != _UNAVAILABLE:
                    return status, content
                reason = "status 503, it is unavailable"
            # Half of the pause is drawn, so that clients do not return all at
            # once.
            pause = 0.2 * 2**retry * random.uniform(0.5, 1.0)
            if retry == self._retries or time.monotonic() + pause > deadline:
                break
            time.sleep(pause)
        raise RequestError(
            f"No prediction from {self._url} (retries: {retry}; {reason}); is "
            "the server running, and is this its REST port?"
        )

    def _exchange(self, body, deadline):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        connection = self._connection
        connection.timeout = remaining
        if connection.sock is not None:
            connection.sock.settimeout(remaining)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", self._path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()

    def _late(self):
        return (
            f"No prediction from {self._url} within {self._timeout:g} seconds; "
            "send fewer images at once, or allow a longer timeout."
        )

    def _refusal(self, status, said):
        if status == 404:
            return (
                f"The server at {self._url} has no model {self._model!r}; "
                "expected the name under which it serves one, such as its "
                f"MODEL_NAME (it said: {said})."
            )
        if status in _TOO_LARGE:
            return (
                f"The request is too large for the server at {self._url}; send "
                f"fewer or smaller images (status {status}, it said: {said})."
            )
        if status in _TIMED_OUT:
            return self._late()
        return (
            f"The server at {self._url} refused the images for model "
            f"{self._model!r} (status {status}, it said: {said})."
        )


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
        return _nested(content)
    except (KeyError, SyntaxError, ValueError, struct.error):
        raise RequestError(
            f"{path} holds no batch of images; expected a .npy file of float32 "
            "or float64, in C order, [batch, height, width, channels]."
        ) from None


def _nested(content):
    """A .npy file as nested lists, read as numpy's NEP 1 describes it."""
    length = "<H" if content[6] == 1 else "<I"
    start = 8 + struct.calcsize(length)
    end = start + struct.unpack_from(length, content, 8)[0]
    header = ast.literal_eval(content[start:end].decode("latin-1").strip())
    shape = header["shape"]
    if header["fortran_order"] or len(shape) < 2 or 0 in shape:
        raise ValueError(header)
    kind = {"<f4": "f", "<f8": "d"}[header["descr"]]
    values = struct.unpack(f"<{math.prod(shape)}{kind}", content[end:])
    for size in reversed(shape[1:]):
        values = [
            list(values[place : place + size])
            for place in range(0, len(values), size)
        ]
    return values


def describe(path, predictions):
    """A line for each image: its class and the probability of that class."""
    lines = []
    for place, prediction in enumerate(predictions):
        try:
            name = prediction["class_name"]
            share = prediction["probabilities"][prediction["class_index"]]
        except (KeyError, TypeError):
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
    parser.add_argument("--url", default="http://localhost:8501")
    parser.add_argument("--model", default="classifier")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds")
    parser.add_argument("--retries", type=int, default=3)
    parser.add_argument("--max_bytes", type=int, default=16 * 2**20)
    flags = parser.parse_args()
    try:
        client = Client(
            flags.url,
            flags.model,
            timeout=flags.timeout,
            retries=flags.retries,
        )
        for path in flags.files:
            predictions = client.predict(read(path, flags.max_bytes))
            print("\n".join(describe(path, predictions)))
    except RequestError as error:
        sys.exit(f"rest_client: {error}")


if __name__ == "__main__":
    main()
