"""The serving kit's clients against a loopback server.

The server is `loopback.py`: not TF Serving, but its public stubs and REST
format over a real exported version on TensorFlow's C++ runtime.
"""

import base64
import collections
import concurrent.futures
import contextlib
import fcntl
import io
import itertools
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
import urllib.error
import urllib.request

import loopback
import numpy as np
from PIL import Image
import pytest
import scipy.special
import tensorflow as tf

import mart_tf

rest_client = loopback.kit_module("rest_client")
grpc_client = loopback.kit_module("grpc_client")
load = loopback.kit_module("load")

_NAMES = [f"digit {digit}" for digit in range(9)] + ["n\u00e9uf"]
_CLIENTS = pytest.mark.parametrize("client", ["rest", "grpc"])


@pytest.fixture(scope="module")
def classifier(levels):
    """One that tells `levels` apart: as built, its last layer is zero."""
    network = mart_tf.models.build("digits_cnn", (8, 8, 1), 10)
    last = network.layers[-1]
    generator = np.random.default_rng(0)
    last.kernel.assign(generator.normal(0.0, 4.0, last.kernel.shape))
    last.bias.assign(-_logits(network, levels).mean(0))
    return network


@pytest.fixture(scope="module")
def model(classifier, tmp_path_factory):
    directory = tmp_path_factory.mktemp("export")
    version = mart_tf.export_saved_model(
        classifier,
        directory,
        class_names=_NAMES,
        pixel_range=(0, 1),
        verify=False,
    )
    model = loopback.Model(version)
    yield model
    model.close()


@pytest.fixture(scope="module")
def addresses(model):
    with loopback.serve(model) as (rest, grpc):
        yield {"rest": rest, "grpc": grpc}


@pytest.fixture
def make(addresses):
    """Makes a client of either kind, as a caller of the module does."""
    opened = []

    def make(kind, **settings):
        module = {"rest": rest_client, "grpc": grpc_client}[kind]
        address = settings.pop("address", addresses[kind])
        opened.append(module.Client(address, **settings))
        return opened[-1]

    yield make
    for client in opened:
        client.close()


@pytest.fixture(scope="module")
def levels():
    """Grey levels of 12 images, uint8 [12, 8, 8]."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (12, 8, 8), np.uint8)


@pytest.fixture(scope="module")
def expected(classifier, levels):
    """The classifier's own probabilities for `levels`: of many classes."""
    probabilities = _probabilities(classifier, levels)
    assert len(set(probabilities.argmax(1))) > 5
    return probabilities


@pytest.fixture(autouse=True)
def no_faults(model):
    yield
    model.failures.clear()
    model.delay = 0.0


def _logits(classifier, levels):
    images = (levels / 255.0).astype(np.float32)[..., None]
    return classifier.predict(images, verbose=0)


def _probabilities(classifier, levels):
    return scipy.special.softmax(_logits(classifier, levels), axis=1)


def _encoded(levels, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, kind)
    return stream.getvalue()


def _name(prediction):
    name = prediction["class_name"]
    return name if isinstance(name, str) else name.decode()


def _call(program, *arguments):
    return subprocess.run(
        [sys.executable, loopback.KIT / f"{program}.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@contextlib.contextmanager
def _started(program, *arguments):
    """A program that runs; what it prints is read from `stdout`, `stderr`."""
    with subprocess.Popen(
        [sys.executable, loopback.KIT / f"{program}.py", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _sentence(said):
    """What was printed, one line again; no line of it is wider than 80."""
    lines = said.rstrip("\n").split("\n")
    assert all(len(line) <= 80 or " " not in line for line in lines), lines
    return " ".join(lines)


def _closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


@_CLIENTS
class TestPredictions:
    def test_encoded_images(self, make, client, levels, expected):
        images = [_encoded(one) for one in levels]
        predictions = make(client).predict(images)
        assert len(predictions) == len(images)
        for prediction, probabilities in zip(
            predictions, expected, strict=True
        ):
            np.testing.assert_allclose(
                prediction["probabilities"], probabilities, atol=1e-5
            )
            assert prediction["class_index"] == probabilities.argmax()
            assert _name(prediction) == _NAMES[probabilities.argmax()]
            assert np.shape(prediction["logits"]) == (10,)

    def test_jpeg(self, make, client, levels, classifier):
        # Four that are far from every other class.
        images = [_encoded(one, "JPEG") for one in levels[:4]]
        predictions = make(client).predict(images)
        decoded = [np.asarray(Image.open(io.BytesIO(one))) for one in images]
        expected = _probabilities(classifier, np.stack(decoded))
        for prediction, probabilities in zip(
            predictions, expected, strict=True
        ):
            # Two decoders may round a level apart.
            np.testing.assert_allclose(
                prediction["probabilities"], probabilities, atol=0.05
            )
            assert prediction["class_index"] == probabilities.argmax()
            assert _name(prediction) == _NAMES[probabilities.argmax()]

    @pytest.mark.parametrize("kind", ["<f4", "<f8"])
    def test_arrays_of_floats(
        self, make, client, levels, expected, kind, tmp_path
    ):
        module = {"rest": rest_client, "grpc": grpc_client}[client]
        path = tmp_path / "batch.npy"
        np.save(path, (levels / 255.0).astype(kind)[..., None])
        predictions = make(client).predict(module.read(path))
        served = [prediction["probabilities"] for prediction in predictions]
        np.testing.assert_allclose(served, expected, atol=1e-5)

    @pytest.mark.parametrize(
        "form", [np.asarray, list, tuple, np.ndarray.tolist]
    )
    def test_arrays_in_memory(self, make, client, levels, expected, form):
        images = (levels / 255.0).astype(np.float32)[..., None]
        predictions = make(client).predict(form(images))
        served = [prediction["probabilities"] for prediction in predictions]
        np.testing.assert_allclose(served, expected, atol=1e-5)

    def test_a_server_that_is_busy_at_first(
        self, make, client, model, levels, expected
    ):
        model.failures += ["UNAVAILABLE"] * 2
        [prediction] = make(client).predict([_encoded(levels[0])])
        np.testing.assert_allclose(
            prediction["probabilities"], expected[0], atol=1e-5
        )
        assert _name(prediction) == _NAMES[expected[0].argmax()]
        assert not model.failures

    def test_every_answer_belongs_to_its_request(
        self, make, client, levels, expected
    ):
        images = [_encoded(one) for one in levels]

        def ask(thread):
            asking = make(client)
            wrong = 0
            for request in range(50):
                place = (thread + request) % len(images)
                [prediction] = asking.predict([images[place]])
                wrong += not np.allclose(
                    prediction["probabilities"], expected[place], atol=1e-5
                )
            return wrong

        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            assert list(threads.map(ask, range(8))) == [0] * 8


class TestLoad:
    @pytest.mark.parametrize("protocol", ["rest", "grpc"])
    def test_ten_thousand_requests_from_eight_threads(
        self, addresses, model, levels, protocol, tmp_path
    ):
        path = tmp_path / "digit.png"
        path.write_bytes(_encoded(levels[0]))
        before = len(model.seconds)
        done = _call(
            "load",
            str(path),
            f"--protocol={protocol}",
            f"--address={addresses[protocol]}",
            "--requests=10000",
            "--threads=8",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        first, rate, latency = done.stdout.splitlines()
        assert first.startswith("10000 requests of 1 images from 8 threads")
        assert first.endswith(": 10000 answered, 0 failed")
        assert re.fullmatch(r"\d+ requests/s, \d+ images/s", rate)
        marks = [float(mark) for mark in re.findall(r"([\d.]+) ms", latency)]
        assert len(marks) == 4
        assert marks == sorted(marks)
        assert len(model.seconds) - before == 10000

    def test_each_grpc_client_has_its_own_connection(self, make, model, levels):
        clients = [make("grpc") for _ in range(8)]
        model.peers.clear()
        result = load.run(
            clients, [_encoded(levels[0])], 16, grpc_client.RequestError
        )
        assert len(result.latencies) == 16
        assert len(model.peers) == 8

    def test_failures_are_counted(self, make, model, levels):
        model.failures += ["INTERNAL"] * 3
        clients = [make("rest"), make("rest")]
        result = load.run(
            clients, [_encoded(levels[0])], 11, rest_client.RequestError
        )
        assert len(result.latencies) == 8
        [(sentence, count)] = result.errors.items()
        assert count == 3
        lines = load.describe(result, 2, 1)
        assert lines[0].endswith(": 8 answered, 3 failed")
        assert lines[-1] == f"failed 3 times: {sentence}"

    @_CLIENTS
    def test_interrupted_it_says_what_it_measured(
        self, client, addresses, model, levels, tmp_path
    ):
        path = tmp_path / "digit.png"
        path.write_bytes(_encoded(levels[0]))
        before = len(model.seconds)
        with _started(
            "load",
            path,
            f"--protocol={client}",
            f"--address={addresses[client]}",
            "--requests=1000000",
        ) as process:
            while process.poll() is None and len(model.seconds) < before + 50:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            printed, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert "Traceback" not in said
        first, rate, latency, last = printed.splitlines()
        answered = len(model.seconds) - before
        assert answered >= 50
        assert first.startswith(f"{answered} requests of 1 images from 8 ")
        assert first.endswith(f": {answered} answered, 0 failed")
        assert "requests/s" in rate and "p99" in latency
        assert last == "stopped before all of 1000000 requests"

    def test_a_second_interrupt_waits_for_nobody(self, levels, tmp_path):
        path = tmp_path / "digit.png"
        path.write_bytes(_encoded(levels[0]))
        with (
            socket.create_server(("127.0.0.1", 0)) as mute,
            _started(
                "load",
                path,
                f"--address=http://127.0.0.1:{mute.getsockname()[1]}",
                "--timeout=1000",
            ) as process,
        ):
            connection, _ = mute.accept()
            process.send_signal(signal.SIGINT)
            assert "waiting for the req" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == -signal.SIGINT
            connection.close()

    def test_nothing_answered(self, levels, tmp_path):
        path = tmp_path / "digit.png"
        path.write_bytes(_encoded(levels[0]))
        done = _call(
            "load",
            str(path),
            f"--address=http://{_closed_port()}",
            "--requests=2",
            "--threads=2",
            "--retries=0",
        )
        assert done.returncode == 1
        said = _sentence(done.stdout)
        assert ": 0 answered, 2 failed" in said
        assert "is the server running" in said

    def test_percentiles_of_a_case_worked_by_hand(self):
        latencies = [place / 1000 for place in range(1, 201)]
        result = load.Result(1.0, latencies, collections.Counter())
        assert result.percentile(50) == 0.100
        assert result.percentile(99) == 0.198
        one = load.Result(1.0, [0.5], collections.Counter())
        assert one.percentile(50) == one.percentile(99) == 0.5


@_CLIENTS
@pytest.mark.parametrize("form", ["array of files", "tensor"])
def test_images_in_other_forms(make, client, levels, form):
    files = [_encoded(each) for each in levels[:2]]
    images = {
        "array of files": np.array(files, object),
        "tensor": tf.constant(levels[:2, :, :, None] / 255.0, tf.float32),
    }
    expected, found = (
        [each["class_index"] for each in make(client).predict(given)]
        for given in (files, images[form])
    )
    assert found == expected


@_CLIENTS
class TestRefusals:
    """One sentence that names what was wrong and how to mend it."""

    @pytest.fixture
    def refused(self, make):
        def refused(kind, images, **settings):
            module = {"rest": rest_client, "grpc": grpc_client}[kind]
            with pytest.raises(module.RequestError) as refusal:
                make(kind, **settings).predict(images)
            assert "\n" not in str(refusal.value)
            return str(refusal.value)

        return refused

    def test_the_server_is_away(self, refused, client, levels):
        address = {"rest": "http://", "grpc": ""}[client] + _closed_port()
        message = refused(
            client, [_encoded(levels[0])], address=address, retries=1
        )
        assert f"No prediction from {address} (retries: 1; " in message
        assert "is the server running" in message

    def test_a_server_that_stays_busy(self, refused, client, model, levels):
        model.failures += ["UNAVAILABLE"] * 9
        message = refused(client, [_encoded(levels[0])], retries=2)
        assert "(retries: 2; " in message
        assert len(model.failures) == 6

    def test_no_retries(self, refused, client, model, levels):
        model.failures += ["UNAVAILABLE"] * 2
        assert "(retries: 0; " in refused(
            client, [_encoded(levels[0])], retries=0
        )
        assert len(model.failures) == 1

    def test_what_another_attempt_would_not_mend(
        self, refused, client, model, levels
    ):
        model.failures += ["INTERNAL"] * 2
        assert "refused the images" in refused(client, [_encoded(levels[0])])
        assert len(model.failures) == 1

    def test_a_wrong_model_name(self, refused, client, levels):
        message = refused(client, [_encoded(levels[0])], model="a model/2")
        assert "has no model 'a model/2'; expected the name under" in message
        assert "Servable not found" in message

    def test_a_wrong_shape(self, refused, client):
        message = refused(client, np.zeros((1, 7, 8, 1)).tolist())
        assert "refused the images for model 'classifier'" in message
        assert "INVALID_ARGUMENT" in message
        assert "7,8,1" in message.replace(" ", "")

    def test_images_that_are_none(self, refused, client):
        message = refused(client, [b"\x89PNG that is none"])
        assert "refused the images" in message

    def test_no_images(self, refused, client):
        assert "Got no images" in refused(client, [])

    def test_a_timeout(self, refused, client, model, levels):
        model.delay = 1.0
        message = refused(client, [_encoded(levels[0])], timeout=0.2)
        assert "within 0.2 seconds; send fewer images" in message

    def test_too_large_for_a_proxy(self, refused, client, model):
        images = np.zeros((100, 8, 8, 1)).tolist()
        with loopback.serve(model, max_bytes=10_000) as (rest, grpc):
            message = refused(
                client, images, address={"rest": rest, "grpc": grpc}[client]
            )
        assert "The request is too large for the server" in message

    def test_settings(self, refused, client):
        for settings in ({"timeout": 0}, {"retries": -1}):
            assert "expected a timeout above 0" in refused(
                client, [b""], **settings
            )

    @pytest.mark.parametrize(
        ("images", "given"),
        [
            (b"\x89PNG", "bytes"),
            (bytearray(b"\x89PNG"), "bytearray"),
            ([bytearray(b"\x89PNG")], "bytearray"),
            ([b"\x89PNG", [1.0]], "list"),
            ([[1.0], b"\x89PNG"], "bytes"),
            ("digit.png", "str"),
            (["digit.png"], "str"),
            (None, "NoneType"),
            (np.float32(1), "float"),
            ([[1.0], {2.0}], "set"),
        ],
    )
    def test_what_are_no_images(self, refused, client, images, given):
        message = refused(client, images)
        # numpy tells neither which number is none, nor what a scalar was.
        kinds = {given, "list", "float32"} if client == "grpc" else {given}
        assert message in {
            f"Got {kind} for images; expected a list with the bytes of PNG or "
            "JPEG files, or an array or nested lists of numbers, [batch, "
            "height, width, channels]."
            for kind in kinds
        }

    @pytest.mark.parametrize("number", [np.nan, np.inf])
    @pytest.mark.parametrize("form", [np.array, list])
    def test_numbers_that_are_none(self, refused, client, form, number):
        images = np.zeros([2, 8, 8, 1])
        images[1, 2, 3, 0] = number
        message = refused(client, form(images))
        assert message.startswith("Got NaN or an infinite number in the ima")

    @pytest.mark.parametrize(
        "form",
        [
            np.asarray,
            tf.constant,
            list,
            lambda levels: [list(levels[0])],
            lambda levels: list(map(tf.constant, levels)),
            lambda levels: [levels[0] / 255.0, levels[1]],
            lambda levels: np.array([levels[0], levels[1, :4], None], object),
        ],
    )
    def test_the_levels_of_a_file(self, refused, client, levels, form):
        message = refused(client, form(levels[:2, :, :, None]))
        assert message.startswith("Got images of uint8; expected floats in")

    def test_images_of_pillow(self, refused, client, levels):
        image = Image.open(io.BytesIO(_encoded(levels[0])))
        message = refused(client, [image])
        assert message.startswith("Got images of PngImageFile; expected float")
        assert message.endswith("or the bytes of image files.")

    def test_an_array_without_images(self, refused, client):
        assert "Got no images" in refused(client, np.zeros((0, 8, 8, 1)))


class TestRestOnly:
    def test_no_address(self):
        for url in ("localhost:8501", "http://", "ftp://host", "http://host:x"):
            with pytest.raises(
                rest_client.RequestError, match="expected http://HOST:PORT"
            ):
                rest_client.Client(url)

    def test_a_connection_that_the_server_closed(self, addresses, levels):
        client = rest_client.Client(addresses["rest"], timeout=10)
        client.predict([_encoded(levels[0])])
        client._connection.sock.shutdown(socket.SHUT_RDWR)
        assert len(client.predict([_encoded(levels[0])])) == 1
        client.close()

    def test_no_time_for_another_attempt(self):
        client = rest_client.Client(f"http://{_closed_port()}", timeout=0.05)
        with pytest.raises(
            rest_client.RequestError, match=r"\(retries: 0; .*refused"
        ):
            client.predict([[1.0]])

    @pytest.mark.parametrize(
        "said, sentence",
        [
            (b"HTTP/1.0 200 OK\r\n\r\n<html>", "it said: <html>"),
            (b"\x00\x00\x12 no HTTP", "its answer is no HTTP"),
            (b"", "closed connection without response"),
        ],
    )
    def test_something_else_answers(self, said, sentence):
        with socket.create_server(("127.0.0.1", 0)) as other:
            client = rest_client.Client(
                f"http://127.0.0.1:{other.getsockname()[1]}", retries=0
            )

            def answer():
                connection, _ = other.accept()
                with connection:
                    received = b""
                    while b"[1.0]" not in received:
                        received += connection.recv(65536)
                    connection.sendall(said)

            with concurrent.futures.ThreadPoolExecutor(1) as threads:
                answered = threads.submit(answer)
                with pytest.raises(rest_client.RequestError, match=sentence):
                    client.predict([1.0])
                answered.result()
            client.close()

    def test_needs_the_standard_library_alone(self):
        code = "import sys; sys.path.insert(0, sys.argv[1]); import rest_client"
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", code, loopback.KIT], check=True
        )


class TestRestFormats:
    """What the loopback server shares with TF Serving's published REST API."""

    def _ask(self, addresses, **request):
        url = f"{addresses['rest']}/v1/models/classifier:predict"
        with urllib.request.urlopen(url, json.dumps(request).encode()) as got:
            return json.load(got)

    def test_rows_and_columns_say_the_same(self, addresses, levels):
        image = {"b64": base64.b64encode(_encoded(levels[0])).decode()}
        signature = {"signature_name": "image_bytes"}
        answers = [
            self._ask(addresses, **signature, **request)
            for request in (
                {"instances": [image]},
                {"instances": [{"image_bytes": image}]},
                {"inputs": [image]},
                {"inputs": {"image_bytes": [image]}},
            )
        ]
        assert answers[0] == answers[1]
        assert answers[2] == answers[3]
        [row] = answers[0]["predictions"]
        assert {key: [value] for key, value in row.items()} == answers[2][
            "outputs"
        ]

    @pytest.mark.parametrize(
        "request_body",
        [
            {},
            {"instances": [[1.0]], "inputs": [[1.0]]},
            {"instances": []},
            {"instances": [["a"]]},
            {"signature_name": "image_bytes", "instances": [{"b64": "%"}]},
            {"signature_name": "other", "instances": [[1.0]]},
        ],
    )
    def test_malformed_requests(self, addresses, request_body):
        with pytest.raises(urllib.error.HTTPError) as refused:
            self._ask(addresses, **request_body)
        assert refused.value.code == 400
        assert list(json.load(refused.value)) == ["error"]


@_CLIENTS
def test_as_a_user_calls_it(client, addresses, levels, expected, tmp_path):
    image, batch, large = (
        tmp_path / name for name in ("digit.png", "batch.npy", "large.png")
    )
    image.write_bytes(_encoded(levels[0]))
    np.save(batch, (levels[:2] / 255.0).astype(np.float32)[..., None])
    large.write_bytes(b"\x89PNG" + bytes(1000))
    flag = {"rest": "--url", "grpc": "--address"}[client]
    done = _call(
        f"{client}_client",
        f"{flag}={addresses[client]}",
        *("--model=classifier", "--max_bytes=1000"),
        *(image, batch, large),
    )
    lines = [f"{_NAMES[one.argmax()]} {one.max():.4f}" for one in expected[:2]]
    assert done.stdout.splitlines() == [
        f"{image}: {lines[0]}",
        f"{batch}[0]: {lines[0]}",
        f"{batch}[1]: {lines[1]}",
    ]
    assert done.returncode == 1
    # TensorFlow's own lines, which nothing silences, come before it.
    assert "Traceback" not in done.stderr
    start = done.stderr.index(f"{client}_client:")
    assert _sentence(done.stderr[start:]) == (
        f"{client}_client: {large} has 1,004 bytes; expected at most 1,000: "
        "make the image smaller, or raise the limit."
    )


class TestLines:
    """No line of a sentence is wider than the terminal, and no word is cut."""

    def test_no_terminal(self, tmp_path):
        path = tmp_path / ("a" * 90) / "image.png"
        done = _call("rest_client", path)
        assert done.stderr == (
            f"rest_client:\n{path}\ncannot be read: No such file or directory."
            "\n"
        )

    @pytest.mark.parametrize(
        ("columns", "width"), [(44, 44), (120, 120), (0, 80)]
    )
    def test_a_terminal(self, columns, width):
        master, slave = pty.openpty()
        size = struct.pack("HHHH", 40, columns, 0, 0)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
        url = f"http://{_closed_port()}/a-path-with-hyphens"
        words = (
            f"rest_client: No prediction from {url} (retries: 0; [Errno 111] "
            "Connection refused); is the server running, and is this its REST "
            "port?"
        ).split()
        with open(slave, "w") as terminal:
            said = rest_client.payloads.wrapped(" ".join(words), terminal)
        os.close(master)
        lines = said.split("\n")
        assert said.split() == words
        assert max(map(len, lines)) <= max(width, len(url))
        # As much as there is room for: the next word would not have fitted.
        for line, following in itertools.pairwise(lines):
            assert len(line) + 1 + len(following.split()[0]) > width

    def test_flags_that_cannot_be_read(self):
        done = _call("load", "digit.png", "--protocol=carrier_pigeon")
        assert done.returncode == 2
        error = done.stderr[done.stderr.index("load.py: error") :]
        assert "'carrier_pigeon' (choose from" in _sentence(error)
        done = _call("load", "digit.png", "--requests=0")
        assert done.returncode == 2
        error = done.stderr[done.stderr.index("load.py: error") :]
        assert "got 0 requests and 8 threads" in _sentence(error)


@pytest.mark.parametrize("module", [rest_client, grpc_client])
class TestFiles:
    def test_files_that_cannot_be_sent(self, module, tmp_path):
        def refused(path):
            with pytest.raises(module.RequestError) as refusal:
                module.read(path)
            return str(refusal.value)

        assert "No such file" in refused(tmp_path / "absent.png")
        assert "cannot be read" in refused(tmp_path)
        text = tmp_path / "image.png"
        text.write_text("a text")
        assert "holds no PNG, JPEG or .npy; expected" in refused(text)
        for name, array in {
            "scalar": np.float32(1),
            "empty": np.zeros((0, 8, 8, 1), np.float32),
            "levels": np.zeros((1, 8, 8, 1), np.uint8),
        }.items():
            path = tmp_path / f"{name}.npy"
            np.save(path, array)
            assert "holds no batch of images; expected a .npy" in refused(path)
        path.write_bytes(path.read_bytes()[:100])
        assert "holds no batch of images; expected a .npy" in refused(path)

    def test_an_answer_of_another_model(self, module):
        with pytest.raises(module.RequestError, match="mart-export wrote"):
            module.describe("digit.png", [{"scores": [1.0]}])
