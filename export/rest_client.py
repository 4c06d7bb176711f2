"""Asks a model that TF Serving serves, over REST, with the standard library.

    python rest_client.py --model=classifier digit.png batch.npy

PNG and JPEG files go to the signature `image_bytes`, as they are; .npy files
with floats of shape [batch, height, width, channels], in the model's pixel
range, go to `serving_default`. Prints each image's class and its probability.
Copy it with payloads.py beside it, or import it:

    client = rest_client.Client("http://localhost:8501", "classifier")
    client.predict([open("digit.png", "rb").read()])
"""

import base64
import functools
import http.client
import json
import math
import queue
import random
import socket
import ssl
import struct
import threading
import time
import urllib.parse

import payloads

# What the server answers while it is too busy, or not ready.
_UNAVAILABLE = 503
_TIMED_OUT = (408, 504)
_TOO_LARGE = (413, 429)


RequestError = payloads.RequestError
describe = payloads.describe


class Client:
    """A connection to one model, kept open; one for each thread.

    Args:
        url: The server's REST address, http or https.
        model: The name under which the server serves the model.
        timeout: Seconds for a whole call, from the look-up of the address to
            the last byte, its retries included; above 0, up to a day.
        retries: How often a call is repeated, with growing pauses, when the
            server cannot be reached or says that it is unavailable.
        max_answer_bytes: Longest answer that is read, 1 or more; a class of an
            image takes about 50.

    Raises:
        RequestError: If one of them is not so.
    """

    def __init__(
        self,
        url="http://localhost:8501",
        model="classifier",
        *,
        timeout=10.0,
        retries=3,
        max_answer_bytes=payloads.ANSWER_BYTES,
    ):
        payloads.check_settings(timeout, retries, max_answer_bytes)
        self._url = url.rstrip("/")
        self._model = model
        self._timeout = timeout
        self._retries = retries
        self._max_answer_bytes = max_answer_bytes
        kinds = {
            "http": http.client.HTTPConnection,
            "https": _secure_connection,
        }
        try:
            parts = urllib.parse.urlsplit(self._url)
            # A name that no look-up could write down is refused here.
            if not (parts.hostname or "").encode("idna"):
                raise ValueError(url)
            self._open = functools.partial(
                kinds[parts.scheme], parts.hostname, parts.port
            )
            self._connection = self._open()
        except (KeyError, ValueError, http.client.InvalidURL):
            raise RequestError(
                f"The address {url!r} is not one of a REST server; expected "
                "http://HOST:PORT."
            ) from None
        quote = functools.partial(urllib.parse.quote, errors="replace")
        path, name = quote(parts.path, "/%"), quote(model, "")
        self._path = f"{path}/v1/models/{name}:predict"

    def close(self):
        """Gives the connection back; the next call opens another."""
        self._connection.close()

    def predict(self, images):
        """Classifies images.

        Args:
            images: A list with the bytes of PNG or JPEG files, or numbers,
                `[batch, height, width, channels]`: an array, or nested lists.

        Returns:
            A dict for each image: `class_name`, `class_index`,
            `probabilities` and `logits`.

        Raises:
            RequestError: If the images are something else; if there is no
                answer, a refusal, or an answer that is none to these images.
        """
        if hasattr(images, "numpy"):
            images = images.numpy()
        payloads.check_floats(images)
        if hasattr(images, "tolist"):
            images = images.tolist()
        if not isinstance(images, list | tuple):
            raise payloads.no_images(images)
        if not images:
            raise RequestError("Got no images; expected at least one.")
        request = {"signature_name": "serving_default", "instances": images}
        if payloads.are_files(images):
            request = {
                "signature_name": "image_bytes",
                "instances": [
                    {"b64": base64.b64encode(image).decode()}
                    for image in images
                ],
            }
        try:
            body = json.dumps(request, default=_lists, allow_nan=False).encode()
        except ValueError:
            # JSON has no such number.
            raise payloads.not_finite() from None
        response, content = self._post(body)
        answer = payloads.json_object(content, len(images))
        if response.status == 200 and "predictions" in answer:
            fault = payloads.fault(answer["predictions"], len(images))
            if not fault:
                return answer["predictions"]
            raise RequestError(
                f"The answer of {self._url} is none to these images: {fault}; "
                f"is {self._model!r} a model that mart-export wrote?"
            )
        said = answer.get("error")
        if 300 <= response.status < 400:
            said = response.getheader("Location")
        if not isinstance(said, str):
            said = content[:1000].decode(errors="replace")
        said = " ".join(said[:1000].split())[:300] or "nothing"
        raise RequestError(self._refusal(response.status, said))

    def _post(self, body):
        """An answer other than 503, and its content."""
        deadline = time.monotonic() + self._timeout
        for retry in range(self._retries + 1):
            try:
                response, content = self._exchange(body, deadline)
            except TimeoutError:
                raise RequestError(self._late()) from None
            except OSError as error:
                reason = str(error)[:300] or type(error).__name__
            except http.client.IncompleteRead:
                reason = "its answer broke off"
            except (http.client.HTTPException, ValueError):
                reason = "its answer is no HTTP"
            else:
                if response.status != _UNAVAILABLE:
                    return response, content
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
        if self._connection.sock and not self._connection.sock.is_idle():
            self.close()
        if self._connection.sock is None:
            self._connect(deadline)
        connection = self._connection
        try:
            connection.sock.deadline = deadline
            headers = {"Content-Type": "application/json"}
            connection.request("POST", self._path, body, headers)
            response = connection.getresponse()
            return response, self._content(response)
        except Exception:
            connection.close()
            raise

    def _connect(self, deadline):
        """Opens the connection; in a thread, since no look-up has a timeout."""
        connection = self._connection
        connection.timeout = _remaining(deadline)
        answers = queue.SimpleQueue()

        def work():
            try:
                answers.put(connection.connect())
            except Exception as error:
                connection.close()
                answers.put(error)

        threading.Thread(target=work, daemon=True).start()
        try:
            failure = answers.get(timeout=connection.timeout)
        except queue.Empty:
            # The thread keeps the old one, and ends in its own time.
            self._connection = self._open()
            raise TimeoutError from None
        if failure:
            raise failure
        if not isinstance(connection.sock, _SecureSocket):
            connection.sock = _Socket(fileno=connection.sock.detach())

    def _content(self, response):
        coding = response.getheader("Content-Encoding") or "identity"
        if coding.lower() != "identity":
            raise RequestError(
                f"The answer of {self._url} is compressed ({coding[:100]}); "
                "expected a plain one, as its proxies should send it."
            )
        content = bytearray()
        while max(len(content), response.length or 0) <= self._max_answer_bytes:
            # A single read would make room for all that is announced.
            block = response.read(2**16)
            content += block
            if not block:
                if response.length:
                    raise http.client.IncompleteRead(b"")
                return bytes(content)
        raise RequestError(
            f"The answer of {self._url} is longer than "
            f"{self._max_answer_bytes:,} bytes; send fewer images at once, or "
            "allow longer answers (max_answer_bytes)."
        )

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
        if status == 200:
            return (
                f"The answer of {self._url} is no JSON object of predictions "
                f"(it said: {said}); is this TensorFlow Serving's REST port?"
            )
        if 300 <= status < 400:
            return (
                f"{self._url} sends its callers elsewhere (status {status}, "
                f"to {said}); expected the address of the server itself."
            )
        return (
            f"The server at {self._url} refused the images for model "
            f"{self._model!r} (status {status}, it said: {said})."
        )


class _Timed:
    """A socket whose every read and write ends by a deadline."""

    deadline = 0.0

    def recv_into(self, *arguments):
        self.settimeout(_remaining(self.deadline))
        return super().recv_into(*arguments)

    def sendall(self, content):
        content = memoryview(content)
        while content:
            self.settimeout(_remaining(self.deadline))
            content = content[self.send(content) :]

    def is_idle(self):
        """Whether it is open, with no rest of an earlier answer."""
        self.settimeout(0)
        try:
            self.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            pass
        return False


class _Socket(_Timed, socket.socket):
    pass


class _SecureSocket(_Timed, ssl.SSLSocket):
    pass


def _secure_connection(host, port):
    context = ssl.create_default_context()
    context.sslsocket_class = _SecureSocket
    return http.client.HTTPSConnection(host, port, context=context)


def _remaining(deadline):
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _lists(value):
    """An array in a list, of numpy or of what is like it, as lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise payloads.no_images(value)


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
    try:
        return _nested(content)
    except ValueError:
        raise RequestError(
            f"{path} holds no batch of images; expected a .npy file of finite "
            "float32 or float64, in C order, [batch, height, width, channels]."
        ) from None


def _nested(content):
    """A .npy file as nested lists."""
    kind, columns_first, shape, start = payloads.array_header(content)
    if columns_first or kind not in ("<f4", "<f8"):
        raise ValueError(kind)
    kind = {"<f4": "f", "<f8": "d"}[kind]
    values = struct.unpack(f"<{math.prod(shape)}{kind}", content[start:])
    if not all(map(math.isfinite, values)):
        raise ValueError("not finite")
    for size in reversed(shape[1:]):
        values = [
            list(values[place : place + size])
            for place in range(0, len(values), size)
        ]
    return values


def main():
    """Classifies the files of the command line, each in a request."""
    payloads.classify_files(
        "rest_client", __doc__, "url", "http://localhost:8501", Client, read
    )


if __name__ == "__main__":
    main()
