"""Settings and files that the serving kit's clients refuse, in a sentence."""

import os
import sys

import loopback
import misbehaving
import numpy as np
import pytest

grpc_client = loopback.kit_module("grpc_client")
load = loopback.kit_module("load")
rest_client = loopback.kit_module("rest_client")

_MODULES = pytest.mark.parametrize("module", [rest_client, grpc_client])
_NO_BATCH = "holds no batch of images; expected a .npy file of finite float"


def npy(header, values=b"", version=1, length=None):
    """A .npy file with any header."""
    header = header.encode()
    width = 2 if version == 1 else 4
    size = (len(header) if length is None else length).to_bytes(width, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + values


def header(kind="'<f4'", order="False", shape="(2, 2)"):
    return f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}"


_GOOD = bytes(16)
MALFORMED = {
    "its first bytes alone": b"\x93NUMPY",
    "no header": b"\x93NUMPY\x01\x00",
    "an empty header": npy(""),
    "a header beyond the file": npy(header(), _GOOD, 2, 2**32 - 1),
    "a header of spaces": npy(" " * 2**20 + header(), _GOOD, 2),
    "a header of brackets": npy("(" * 9999),
    "a header of minus signs": npy("-" * 9999 + "1"),
    "a header that is a call": npy("__import__('os').abort()"),
    "no shape": npy("{'descr': '<f4', 'fortran_order': False}", _GOOD),
    "a shape of 4 TiB": npy(header(shape="(2, 1099511627776)"), _GOOD),
    "a shape of 5000 digits": npy(header(shape=f"(2, {'9' * 5000})"), _GOOD),
    "a shape beyond all numbers": npy(header(shape=f"({'9,' * 999})"), _GOOD),
    "a shape of 3000 ones": npy(header(shape=f"({'1,' * 3000})"), bytes(4)),
    "a shape below 0": npy(header(shape="(-2, -2)"), _GOOD),
    "a shape of floats": npy(header(shape="(2.0, 2.0)"), _GOOD),
    "a shape of names": npy(header(shape="(n, m)"), _GOOD),
    "a number for a shape": npy(header(shape="4"), _GOOD),
    "nothing for a shape": npy(header(shape="()"), bytes(4)),
    "too few values": npy(header(), _GOOD[:-1]),
    "too many values": npy(header(), bytes(17)),
    "objects": npy(header(kind="'|O'"), b"\x80\x04N."),
    "records": npy(header(kind="[('a', '<f4')]"), _GOOD),
    "whole numbers": npy(header(kind="'<i4'"), _GOOD),
    "an order of no kind": npy(header(order="'C'"), _GOOD),
    "NaN": npy(header(), np.full(4, np.nan, "<f4").tobytes()),
    "infinity": npy(header(), np.full(4, -np.inf, "<f4").tobytes()),
}


@_MODULES
@pytest.mark.parametrize("name", MALFORMED)
def test_arrays(module, name, tmp_path):
    path = tmp_path / "images.npy"
    path.write_bytes(MALFORMED[name])
    sentence, lines = misbehaving.call(module, path)
    misbehaving.assert_sentence(sentence, _NO_BATCH)
    assert str(path) in sentence
    assert not lines


@_MODULES
def test_an_array_is_read_as_numpy_reads_it(module, tmp_path):
    path = tmp_path / "images.npy"
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.save(path, array)
    np.testing.assert_array_equal(module.read(path), array)
    # Written by another program: other quotes and spaces, the second version.
    spaced = '{"shape" :(2,3, 4),"fortran_order":False,  "descr":"<f4"}\n'
    path.write_bytes(npy(spaced.replace('" :', '":'), array.tobytes(), 2))
    np.testing.assert_array_equal(module.read(path), array)


@pytest.mark.parametrize("kind", ["<f2", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", "CF")
def test_arrays_that_grpc_takes(kind, order, tmp_path):
    array = np.arange(24).reshape(2, 3, 4).astype(kind, order=order)
    np.save(tmp_path / "images.npy", array)
    images = grpc_client.read(tmp_path / "images.npy")
    np.testing.assert_array_equal(images, array)
    assert images.dtype == np.float32


def test_doubles_beyond_float32(tmp_path):
    np.save(tmp_path / "images.npy", np.full((2, 2), 1e300))
    sentence, _ = misbehaving.call(grpc_client, tmp_path / "images.npy")
    misbehaving.assert_sentence(sentence, _NO_BATCH)


@_MODULES
def test_what_is_no_file(module, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "round.png").symlink_to(tmp_path / "round.png")
    for path in ("/dev/zero", tmp_path, *tmp_path.iterdir()):
        sentence, _ = misbehaving.call(module, path)
        misbehaving.assert_sentence(sentence, f"{path} cannot be read")


@_MODULES
def test_files_that_say_no_size_or_are_too_large(module, tmp_path):
    sentence, _ = misbehaving.call(module, "/proc/self/maps")
    misbehaving.assert_sentence(sentence, "holds no PNG, JPEG or .npy")
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.write(b"\x89PNG")
        file.truncate(2**40)
    sentence, _ = misbehaving.call(module, path)
    misbehaving.assert_sentence(sentence, "has 1,099,511,627,776 bytes; expect")


@_MODULES
def test_a_name_of_escape_codes(module, tmp_path):
    path = tmp_path / "\x1b[2J\n\udcff.png"
    path.write_text("none")
    sentence, _ = misbehaving.call(module, path)
    misbehaving.assert_sentence(sentence, r"\x1b[2J\n\udcff.png holds no PNG")


@_MODULES
@pytest.mark.parametrize(
    "setting",
    [
        "timeout=nan",
        "timeout=inf",
        "timeout=-1",
        "timeout=1e300",
        "timeout=86401",
        "retries=-1",
        "max_answer_bytes=0",
        "max_answer_bytes=-1",
        "max_answer_bytes=2147483648",
    ],
)
def test_settings(module, setting):
    sentence, _ = misbehaving.call(module, f"--{setting}", "absent.png")
    misbehaving.assert_sentence(sentence, "Got a timeout of ")
    misbehaving.assert_sentence(sentence, "expected a timeout above 0")


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1",
        "http://[x]",
        "http://host:99999",
        "http://host:-1",
        "http://a..b",
        f"http://{'a' * 70}.org",
        "http://a b/",
        "http://\x1b[2J/",
        "http://\udcff/",
        "file:///dev/zero",
    ],
)
def test_addresses(url):
    sentence, _ = misbehaving.call(rest_client, f"--url={url}", "absent.png")
    misbehaving.assert_sentence(sentence, "is not one of a REST server")


@pytest.mark.parametrize("threads", ["0", "1001", "1000000000"])
def test_threads_of_a_load(threads, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["load", f"--threads={threads}", "x.png"])
    with pytest.raises(SystemExit):
        load.main()
    assert "at least one thread and at most 1000" in capsys.readouterr().err


@pytest.mark.parametrize(
    "address, part",
    [
        ("", "expected HOST:PORT"),
        ("\udcff:1", "expected HOST:PORT"),
        ("http:///x", "is this its gRPC port?"),
        ("a b:1", "is this its gRPC port?"),
    ],
)
def test_addresses_of_grpc(address, part, tmp_path):
    images = misbehaving.write_images(tmp_path)
    sentence, _ = misbehaving.call(
        grpc_client, f"--address={address}", images, "--timeout=2"
    )
    misbehaving.assert_sentence(sentence, part)


@_MODULES
def test_a_model_that_is_no_utf8(module, tmp_path):
    flag = {"rest_client": "url=http://", "grpc_client": "address="}
    images = misbehaving.write_images(tmp_path)
    with misbehaving.listening(
        misbehaving.says_and_closes(b""), misbehaving.reads_nothing
    ) as address:
        sentence, _ = misbehaving.call(
            module,
            f"--{flag[module.__name__]}{address}",
            *("--model=\udcff", "--timeout=2", "--retries=0", images),
        )
    misbehaving.assert_sentence(sentence, "No prediction from ")
