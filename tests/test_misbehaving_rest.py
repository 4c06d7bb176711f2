"""The REST client against servers that misbehave: a sentence, and an end."""

import gzip
import shutil
import socket
import ssl
import subprocess
import threading
import time

import loopback
import misbehaving
from misbehaving import answer
from misbehaving import http
from misbehaving import prediction
import pytest

rest_client = loopback.kit_module("rest_client")
load = loopback.kit_module("load")

_GOOD = answer(prediction(), prediction())
_LATE = "within 0.5 seconds; send fewer images"
_LONG = "is longer than 16,777,216 bytes; send fewer images at once"
_NO_JSON = "is no JSON object of predictions (it said: "
_NO_HTTP = "its answer is no HTTP"
_LOST = "is the server running, and is this its REST port?"
_ENDLESS = http(length="none")
_CHUNKED = http(length="none", headers=["Transfer-Encoding: chunked"])

says = misbehaving.says
closes = misbehaving.says_and_closes
repeats = misbehaving.repeats
trickles = misbehaving.trickles


def errs(status, content, *headers):
    return says(http(content, status, headers=headers))


# What is sent by the server, and the sentence of the client.
SERVERS = {
    "silence": (says(b""), _LATE),
    "closes": (closes(b""), "closed connection without response"),
    "resets": (misbehaving.resets, _LOST),
    "a byte at a time": (trickles(http(_GOOD)), _LATE),
    "half a header": (says(b"HTTP/1.1 200 OK\r\nContent-"), _LATE),
    "half a body": (says(http(_GOOD, length=10_000)), _LATE),
    "headers without end": (
        repeats(b"HTTP/1.1 200 OK\r\n", b"X: 1\r\n"),
        _NO_HTTP,
    ),
    "slow headers": (repeats(b"HTTP/1.1 200 OK\r\n", b"X: 1\r\n", 0.1), _LATE),
    "a header of a MiB": (
        says(http(_GOOD, headers=["X: " + "x" * 2**20])),
        _NO_HTTP,
    ),
    "100 Continue without end": (
        repeats(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        _LATE,
    ),
    "slow 100 Continue": (
        repeats(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.1),
        _LATE,
    ),
    "a slow body without end": (repeats(_ENDLESS, b" ", 0.1), _LATE),
    "a body without end": (repeats(_ENDLESS, b"[" * 2**16), _LONG),
    "slow chunks without end": (repeats(_CHUNKED, b"1\r\n \r\n", 0.1), _LATE),
    "chunks without end": (
        repeats(_CHUNKED, b"8000\r\n" + b" " * 2**15 + b"\r\n"),
        _LONG,
    ),
    "trailers without end": (repeats(_CHUNKED + b"0\r\n", b"X: 1\r\n"), _LATE),
    "a chunk of an exbibyte": (
        closes(_CHUNKED + b"1000000000000000\r\n" + _GOOD),
        "its answer broke off",
    ),
    "a chunk of less than nothing": (
        closes(_CHUNKED + b"-1\r\n" + _GOOD),
        _LOST,
    ),
    "a chunk of letters": (closes(_CHUNKED + b"many\r\n" + _GOOD), "broke off"),
    "3 GiB": (repeats(http(length=3 * 2**30), bytes(2**16)), _LONG),
    "a length of 30 digits": (says(http(_GOOD, length=10**30)), _LONG),
    "less than its length": (closes(http(_GOOD, length=999)), "broke off"),
    "more than its length": (says(http(_GOOD, length=20)), _NO_JSON),
    "gzip": (
        errs("200 OK", gzip.compress(_GOOD), "Content-Encoding: gzip"),
        "is compressed (gzip); expected a plain one",
    ),
    "gzip, unsaid": (says(http(gzip.compress(_GOOD))), _NO_JSON),
    "to itself": (
        errs("302 Found", b"", "Location: /v1"),
        "sends its callers elsewhere (status 302, to /v1); expected the addr",
    ),
    "to nowhere": (errs("301 Moved", b""), "(status 301, to nothing)"),
    "to escape codes": (
        errs("308 Moved", b"", "Location: http://\x1b[2Jx"),
        r"to http://\x1b[2Jx)",
    ),
    "noise": (closes(bytes(range(128, 256))), _NO_HTTP),
    "an alert of TLS": (closes(b"\x15\x03\x01\x00\x02\x02\x16"), _NO_HTTP),
    "mail": (closes(b"220 ready\r\n"), _NO_HTTP),
    "status 999": (errs("999 Odd", b"no"), "(status 999, it said: no)"),
    "status 0": (errs("0 Odd", b"no"), _NO_HTTP),
    "no content": (errs("204 No Content", b""), "(status 204, it said: not"),
    "another protocol": (closes(http(status="101 Switch")), "(status 101, it"),
    "an error that is no text": (
        errs("500 Oh", b'{"error": {"code": 5}}'),
        '(status 500, it said: {"error": {"code": 5}})',
    ),
    "an error of escape codes": (
        errs("400 Bad", b'{"error": "\\u001b]0;x\\u0007\\u202e\\ud800 no"}'),
        r"it said: \x1b]0;x\x07\u202e\ud800 no)",
    ),
    "a raw error": (errs("500 Oh", b"\x1b[31m\xff\x9b\n\r"), r"\x1b[31m"),
    "an error without end": (
        repeats(http(status="500 Oh", length="none"), b"oh" * 2**15),
        _LONG,
    ),
    "a long error": (errs("500 Oh", b"oh " * 10**6), "it said: oh oh oh"),
    "no model": (errs("404 No", b"\x1b"), r"(it said: \x1b)"),
    "too large": (errs("413 Large", b"[]"), "is too large for the server"),
    "busy": (errs("503 Busy", b""), "status 503, it is unavailable"),
    "busy without end": (
        repeats(http(status="503 Busy", length="none"), b" ", 0.1),
        _LATE,
    ),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A file of two images."""
    return misbehaving.write_images(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("name", SERVERS)
def test_servers(name, images):
    misbehave, part = SERVERS[name]
    # What is too long has to arrive first.
    timeout = 30 if part == _LONG else 0.5
    with misbehaving.listening(misbehave) as address:
        sentence, lines = misbehaving.call(
            rest_client,
            f"--url=http://{address}",
            *(f"--timeout={timeout}", "--retries=0", images),
        )
    misbehaving.assert_sentence(sentence, part)
    assert not lines


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_takes_no_request(scheme):
    def nothing(connection):
        time.sleep(2)

    with misbehaving.listening(nothing, misbehaving.reads_nothing) as address:
        client = rest_client.Client(f"{scheme}://{address}", timeout=0.5)
        assert_late(client, [bytes(2**25)])


@pytest.fixture
def tls(tmp_path, monkeypatch):
    """Wraps what a server does in TLS, with a certificate that is trusted."""
    program = shutil.which("openssl")
    if not program:
        pytest.skip("needs the program openssl, for a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    arguments = (
        f"req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} "
        "-days 1 -subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(
        [program, *arguments.split()], check=True, capture_output=True
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def wrap(misbehave):
        def serve(connection):
            with context.wrap_socket(connection, server_side=True) as wrapped:
                while misbehaving.reads_http(wrapped):
                    misbehave(wrapped)

        return serve

    return wrap


def test_tls(tls):
    good = closes(http(answer(prediction())))
    with misbehaving.listening(tls(good), misbehaving.reads_nothing) as address:
        client = rest_client.Client(f"https://{address}")
        for _ in range(2):
            [told] = client.predict([b"image"])
            assert told["class_name"] == "one"
        client.close()
    slow = trickles(http(_GOOD))
    with misbehaving.listening(tls(slow), misbehaving.reads_nothing) as address:
        assert_late(rest_client.Client(f"https://{address}", timeout=0.5))


def test_a_slow_handshake():
    slow = trickles(b"\x16\x03\x03\x40\x00" + bytes(1000))
    with misbehaving.listening(slow, misbehaving.reads_nothing) as address:
        client = rest_client.Client(f"https://{address}", timeout=0.5)
        assert_late(client)


def test_a_look_up_without_end(monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *unused, **options: ended.wait(60)
    )
    client = rest_client.Client("http://name", timeout=0.5)
    assert_late(client)
    ended.set()


def test_retries_are_within_the_timeout():
    with misbehaving.listening(misbehaving.resets) as address:
        client = rest_client.Client(
            f"http://{address}", timeout=0.5, retries=10**30
        )
        started = time.monotonic()
        # The last attempt may be under way when the time is up.
        ended = f"{_LOST[:20]}|within 0.5 seconds"
        with pytest.raises(rest_client.RequestError, match=ended):
            client.predict([b""])
        assert time.monotonic() - started < 5


def test_the_second_answer_to_a_request_is_none_to_the_next():
    def twice(connection):
        connection.sendall(http(answer(prediction())))
        time.sleep(0.05)
        connection.sendall(http(answer(prediction(class_name="stale"))))
        connection.recv(1)

    with misbehaving.listening(twice) as address:
        client = rest_client.Client(f"http://{address}")
        for _ in range(3):
            [told] = client.predict([b"image"])
            assert told["class_name"] == "one"
            # The other answer is there before the next request.
            time.sleep(0.5)
        client.close()


def test_a_client_goes_on_after_a_call_that_was_late():
    calls = []

    def late_at_first(connection):
        calls.append(connection)
        if len(calls) == 1:
            trickles(http(_GOOD))(connection)
        connection.sendall(http(_GOOD))

    with misbehaving.listening(late_at_first) as address:
        client = rest_client.Client(f"http://{address}", timeout=0.5)
        assert_late(client)
        assert len(client.predict([b"", b""])) == 2
        client.close()


def assert_late(client, images=(b"",)):
    started = time.monotonic()
    with pytest.raises(rest_client.RequestError, match=_LATE):
        client.predict(images)
    assert time.monotonic() - started < 5


# 15 MiB of JSON that takes thirty times as much when parsed, and of what is.
_LISTS = b'{"predictions": [' + b"[]," * (5 * 2**20) + b"0]}"
_KEYS = b",".join(b'"%x": 0' % place for place in range(1_200_000))
_TEXTS = b'{"predictions": [' + b'"ab",' * (3 * 2**20) + b"0]}"
_BOMB = gzip.compress(bytes(2**24)) * 128
# What a process is asked to bear, and the MiB above those of a good answer.
HEAVY = {
    "3 GiB": (SERVERS["3 GiB"][0], _LONG, 200),
    "a body without end": (SERVERS["a body without end"][0], _LONG, 200),
    "chunks without end": (SERVERS["chunks without end"][0], _LONG, 200),
    "a chunk of 3 GiB": (
        repeats(_CHUNKED + b"C0000000\r\n", bytes(2**16)),
        _LONG,
        200,
    ),
    "2 GiB in gzip": (
        errs("200 OK", _BOMB, "Content-Encoding: gzip"),
        "is compressed (gzip)",
        200,
    ),
    "lists of nothing": (says(http(_LISTS)), "is no JSON object of", 200),
    "many keys": (
        says(http(b'{"predictions": {' + _KEYS + b"}}")),
        "is no JSON object of",
        200,
    ),
    "many texts": (says(http(_TEXTS)), "expected a list of 2", 500),
    "100 Continue without end": (
        SERVERS["100 Continue without end"][0],
        "within 2 seconds",
        200,
    ),
    "escape codes": (SERVERS["an error of escape codes"][0], r"\x1b]0;x", 200),
}


def run(program, flag, images, *arguments):
    return misbehaving.run(
        loopback.KIT / f"{program}.py", flag, *arguments, images
    )


@pytest.fixture(scope="module")
def usual_peak(images):
    """MiB that the client holds for a good answer."""
    with misbehaving.listening(says(http(_GOOD))) as address:
        done, peak = run("rest_client", f"--url=http://{address}", images)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    return peak


@pytest.mark.parametrize("name", HEAVY)
def test_memory(name, usual_peak, images):
    misbehave, part, more = HEAVY[name]
    timeout = 2 if "within 2 seconds" in part else 40
    with misbehaving.listening(misbehave) as address:
        done, peak = run(
            "rest_client",
            f"--url=http://{address}",
            images,
            f"--timeout={timeout}",
            "--retries=0",
        )
    assert done.returncode == 1
    assert done.stdout == ""
    misbehaving.assert_sentence(done.stderr, part)
    assert peak < usual_peak + more


def test_letters_that_the_terminal_has_not(images, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    content = answer(prediction(), prediction(class_name="n\u00e9uf"))
    with misbehaving.listening(says(http(content))) as address:
        done, _ = run("rest_client", f"--url=http://{address}", images)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].endswith(r": n\xe9uf 0.6000")


def test_load_counts_what_misbehaves(images):
    one = http(answer(prediction()))
    with misbehaving.listening(closes(one)) as address:
        done, _ = run(
            "load",
            f"--address=http://{address}",
            images,
            *("--requests=6", "--threads=2"),
        )
    assert done.returncode == 1
    assert "0 answered, 6 failed" in done.stdout
    assert "it has 1 predictions, expected a list of 2" in " ".join(
        done.stdout.split("\n")
    )


def test_load_keeps_few_of_many_reasons():
    class Client:
        def predict(self, images):
            raise rest_client.RequestError(str(time.perf_counter()))

    result = load.run([Client()], [b""], 50, rest_client.RequestError)
    assert result.errors.total() == 50
    assert len(result.errors) == 21
    assert result.errors["other reasons"] == 30
