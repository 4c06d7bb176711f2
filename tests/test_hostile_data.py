"""Files made to hurt end in one sentence: none hangs, none eats the memory."""

import io
import os
import pathlib
import struct
import subprocess
import sys
import textwrap
import zipfile
import zlib

import h5py
import hostile_files
import hypothesis
import keras
import numpy as np
from PIL import Image
import pytest

from mart_tf import data
from mart_tf import limits
from mart_tf import ram
from mart_tf.models import loading
from mart_tf.models import weights

EXAMPLES = int(os.environ.get("MART_TF_HOSTILE_EXAMPLES", "40"))


@pytest.mark.parametrize("form", hostile_files.FORMS)
def test_damage_is_one_sentence(form, tmp_path):
    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(hostile_files.FORMS[form][0])
    def attempt(content):
        hostile_files.attempt(form, content, tmp_path)

    attempt()


def archive(path, header, size, times=1):
    """An .npz file whose x_train has a header and holds zeros."""
    arrays = {"y_train": [0, 1], "x_test": np.zeros([2, 2, 2], np.uint8)}
    arrays["y_test"] = arrays["y_train"]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, True, 1) as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w") as member:
                np.save(member, np.asarray(array))
        with file.open("x_train.npy", "w", force_zip64=True) as member:
            member.write(header)
            for _ in range(times):
                member.write(bytes(size))


def header(shape):
    """What numpy writes before an array of bytes."""
    file = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, fields)
    return file.getvalue()


def png(path, side):
    """A PNG whose header says a size, and that holds next to nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, content in [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(99))),
        (b"IEND", b""),
    ]:
        checksum = zlib.crc32(kind + content)
        parts.append(struct.pack(">I", len(content)) + kind + content)
        parts.append(struct.pack(">I", checksum))
    path.write_bytes(b"".join(parts))


def bomb(path):
    archive(path, header((2**29,)), 2**24, times=32)
    return f"npz:{path}"


def lying_header(path):
    archive(path, header((2**49 + 2**46,)), 1000)
    return f"npz:{path}"


def header_that_is_none(path):
    archive(path, b"\x93NUMPY\x01\x00\x76\x00" + b"[1, 2]".ljust(118), 8)
    return f"npz:{path}"


def many_members(path):
    with zipfile.ZipFile(path, "w") as file:
        for number in range(20_000):
            file.writestr(str(number), b"")
    return f"npz:{path}"


def large_picture(path):
    png(path / "a" / "z.png", 60_000)
    png(path / "b" / "z.png", 60_000)
    return f"folder:{path}:size=8"


def unresized_picture(path):
    png(path / "a" / "z.png", 5_000)
    png(path / "b" / "z.png", 5_000)
    return f"folder:{path}"


def pipe(path):
    for name in "ab":
        (path / name).mkdir(parents=True)
        os.mkfifo(path / name / "z.png")
    return f"folder:{path}"


def pipe_for_an_archive(path):
    os.mkfifo(path)
    return f"npz:{path}"


def postscript(path):
    for name in "ab":
        (path / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(path / name / "z.eps")
        (path / name / "z.eps").rename(path / name / "z.png")
    return f"folder:{path}"


def table(path):
    path.write_bytes(b"\x80\x02Nr" + struct.pack("<I", 2**29) + b".")
    return f"pickle:{path}"


def keys_without_end(path):
    doubled = b"".join(
        b"0h" + bytes([n]) + b"h" + bytes([n]) + b"\x86q" + bytes([n + 1])
        for n in range(60)
    )
    path.write_bytes(b"\x80\x02}K\x01\x85q\x00" + doubled + b"K\x01s.")
    return f"pickle:{path}"


def text_encoded_again_and_again(path):
    text = b"a" * 2**20
    encoded = b"c_codecs\nencode\nh\x00X\x06\0\0\0latin1\x86R"
    path.write_bytes(
        b"\x80\x02}X\x04\0\0\0data(X"
        + struct.pack("<I", len(text))
        + text
        + b"q\x00"
        + encoded * 4000
        + b"ls."
    )
    return f"pickle:{path}"


HURTING = {
    bomb: "says that it expands to 512.0 MiB; expected at most 100 times",
    lying_header: "says 576.0 TiB in its header",
    header_that_is_none: "a header that numpy did not write",
    many_members: "more than 1,000 members",
    large_picture: "more than 89,478,485 pixels",
    unresized_picture: "has 5000x5000 pixels; expected at most 16,777,216",
    pipe: "z.png is a named pipe; expected a regular file",
    pipe_for_an_archive: "is a named pipe; expected a regular file",
    postscript: "z.png cannot be read as an image",
    table: "holds place 536,870,912 of a table of",
    keys_without_end: "keys of tuples in tuples that repeat",
    text_encoded_again_and_again: "holds no array data",
}


def test_none_needs_memory_or_time(tmp_path):
    """All in one child, whose address space is that of TensorFlow and 1 GiB."""
    specs = {
        make(tmp_path / make.__name__): said for make, said in HURTING.items()
    }
    script = f"""
        import resource
        from mart_tf import data
        from mart_tf.data import folder, npz, splits, unpickling

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for spec, said in {specs!r}.items():
            load = data.load
            if spec.startswith("pickle:"):
                load = data.load_pool
            try:
                load(spec)
            except ValueError as error:
                assert said in str(error), (said, str(error))
                assert chr(10) not in str(error)
            else:
                raise AssertionError(spec)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert after - before < 200 * 1024, (before, after)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=pathlib.Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]


class TestLegitimateDataPasses:
    def test_blank_images_that_deflate_a_thousandfold(self, tmp_path):
        images = np.zeros([20_000, 32, 32, 3], np.uint8)
        path = tmp_path / "blank.npz"
        np.savez_compressed(path, image=images)
        assert images.nbytes > 500 * path.stat().st_size
        assert len(data.load_pool(f"npz:{path}")) == 20_000

    def test_more_than_that_passes_without_compression(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(limits, "SMALL", 2**20)
        images = np.zeros([2_000, 32, 32, 3], np.uint8)
        path = tmp_path / "blank.npz"
        np.savez_compressed(path, image=images)
        with pytest.raises(ValueError, match="without compression"):
            data.load_pool(f"npz:{path}")
        np.savez(path, image=images)
        assert len(data.load_pool(f"npz:{path}")) == 2_000

    def test_grey_levels_that_look_like_a_dtype(self, tmp_path):
        images = np.full([4, 2, 2], ord("|"), np.uint8)
        images[..., 1] = ord("O")
        np.savez(tmp_path / "pool.npz", image=images)
        assert len(data.load_pool(f"npz:{tmp_path}/pool.npz")) == 4

    def test_a_link_to_a_file(self, tmp_path):
        np.savez(tmp_path / "pool.npz", image=np.zeros([4, 2, 2], np.uint8))
        (tmp_path / "link.npz").symlink_to(tmp_path / "pool.npz")
        assert len(data.load_pool(f"npz:{tmp_path}/link.npz")) == 4


def test_what_does_not_fit_into_memory(tmp_path, monkeypatch):
    # Not compressed, the images of a pool stay in the file.
    image = np.zeros([40, 99, 99], np.uint8)
    np.savez_compressed(tmp_path / "pool.npz", image=image)
    assert ram.available() > 2**20
    monkeypatch.setattr(ram, "available", lambda: 2**18)
    with pytest.raises(ValueError, match="takes 383.0 KiB .* 256.0 KiB are"):
        data.load_pool(f"npz:{tmp_path}/pool.npz")


@pytest.mark.parametrize("name", ["a\nb.png", "a\x1b[0m.png", "\udcff.png"])
def test_names_that_cannot_be_printed(name, tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(b"")
    with pytest.raises(ValueError, match="control character") as refused:
        data.load(f"folder:{tmp_path}")
    assert str(refused.value).isprintable()


class TestModels:
    def network(self):
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])

    def test_a_configuration_that_expands(self, tmp_path):
        path = tmp_path / "network.keras"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, True, 1) as file:
            file.writestr("config.json", bytes(300 * 2**20))
        with pytest.raises(ValueError, match="network.keras .* 300.0 MiB"):
            loading.read(str(path))

    @pytest.mark.parametrize("in_archive", [False, True])
    def test_weights_that_are_not_in_the_file(self, in_archive, tmp_path):
        network = self.network()
        path = tmp_path / "network.weights.h5"
        network.save_weights(path)
        with h5py.File(path, "a") as file:
            file.create_dataset("zeros", (2**35,), "u1", chunks=(2**20,))
        read = weights.load_weights
        if in_archive:
            network.save(tmp_path / "network.keras")
            parts = {}
            with zipfile.ZipFile(tmp_path / "network.keras") as file:
                parts = {name: file.read(name) for name in file.namelist()}
            parts["model.weights.h5"] = path.read_bytes()
            path = tmp_path / "network.keras"
            with zipfile.ZipFile(path, "w") as file:
                for name, content in parts.items():
                    file.writestr(name, content)

            def read(_, path):
                return loading.read(str(path))

        with pytest.raises(ValueError, match="expands to 32.0 GiB"):
            read(network, path)

    def test_a_lambda_is_not_run(self, tmp_path):
        network = keras.Sequential(
            [keras.Input((4,)), keras.layers.Lambda(lambda x: x + 1.0)]
        )
        network.save(tmp_path / "network.keras")
        with pytest.raises(ValueError, match="cannot be read; .*Lambda"):
            loading.read(str(tmp_path / "network.keras"))
