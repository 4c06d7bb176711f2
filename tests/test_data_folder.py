"""Trees of images: one folder for each class."""

import contextlib
import os
import pathlib
import shutil
import struct
import tempfile
import zlib

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from mart_tf import data
from mart_tf.data import names


def image(number, height=6, width=5, channels=3):
    """An image of its own for each number."""
    pixels = np.random.default_rng(number).integers(
        0, 256, [height, width, channels]
    )
    return pixels.astype(np.uint8)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze()).save(path)


@pytest.fixture
def tree(tmp_path):
    """20 images of two classes; `image(n)` lies in row n."""
    root = tmp_path / "pets"
    for row in range(20):
        name = "cat" if row < 12 else "dog"
        suffix = (".png", ".BMP")[row % 2]
        write(root / name / f"{row:02}{suffix}", image(row))
    return root


class TestFolder:
    def test_rows_follow_the_names(self, tree):
        (tree / "cat" / "notes.txt").write_text("no image")
        (tree / "cat" / "._00.png").write_text("left by macOS")
        (tree / ".cache").mkdir()
        loaded = data.load(f"folder:{tree}")
        assert loaded.class_names == ("cat", "dog")
        assert loaded.image_shape == (6, 5, 3) and loaded.mode == "memory"
        parts = (loaded.train, loaded.validation, loaded.test)
        assert [len(split) for split in parts] == [14, 2, 4]
        rows = np.concatenate([split.indices for split in parts])
        np.testing.assert_array_equal(np.sort(rows), np.arange(20))
        for split in parts:
            for pixels, label, row in zip(
                split.images, split.labels, split.indices, strict=True
            ):
                np.testing.assert_array_equal(pixels, image(row))
                assert label == (row >= 12)

    def test_train_and_test_folders(self, tree, tmp_path):
        root = tmp_path / "halves"
        shutil.copytree(tree, root / "train")
        for row in range(100, 103):
            write(root / "test" / "dog" / f"{row}.png", image(row))
        write(root / "test" / "cat" / "a.png", image(99))
        loaded = data.load(f"folder:{root}")
        assert len(loaded.train) + len(loaded.validation) == 20
        np.testing.assert_array_equal(loaded.test.labels, [0, 1, 1, 1])
        np.testing.assert_array_equal(loaded.test.indices, [0, 1, 2, 3])
        np.testing.assert_array_equal(loaded.test.images[0], image(99))

    def test_what_is_not_read_is_counted(self, tree, tmp_path, recwarn):
        (tree / "cat" / "notes.txt").write_text("no image")
        data.load(f"folder:{tree}")
        assert not [w for w in recwarn if "not read" in str(w.message)]
        halves = tmp_path / "halves"
        for half in ("train", "test", "val"):
            shutil.copytree(tree / "dog", halves / half / "dog")
            shutil.copytree(tree / "cat", halves / half / "cat")
        with pytest.warns(UserWarning, match="12 in val/cat, 8 in val/dog"):
            data.load(f"folder:{halves}")
        for row in range(3):
            write(tree / "cat" / "more" / f"{row}.png", image(row))
            write(tree / "dog" / f"{row}.tiff", image(row))
        write(tree / "left.png", image(0))
        with pytest.warns(
            UserWarning, match="holds 7 images that are not"
        ) as w:
            loaded = data.load(f"folder:{tree}")
        assert "3 in cat/more, 3 of .tiff, 1 in .; exp" in str(w[0].message)
        assert (
            len(loaded.train) + len(loaded.validation) + len(loaded.test) == 20
        )

    def test_greyscale_has_one_channel(self, tmp_path):
        for row in range(6):
            path = tmp_path / "ab"[row % 2] / f"{row}.png"
            write(path, image(row, channels=1))
        loaded = data.load(f"folder:{tmp_path}")
        assert loaded.image_shape == (6, 5, 1)
        numbers = np.array([0, 2, 4, 1, 3, 5])[loaded.train.indices]
        for pixels, number in zip(loaded.train.images, numbers, strict=True):
            np.testing.assert_array_equal(pixels, image(number, channels=1))

    @pytest.mark.parametrize("suffix", ["gif", "jpg", "jpeg", "webp"])
    def test_other_formats(self, tmp_path, suffix):
        grey = np.full([8, 8, 3], 100, np.uint8)
        for row in range(6):
            write(tmp_path / "ab"[row % 2] / f"{row}.{suffix}", grey + row)
        loaded = data.load(f"folder:{tmp_path}:size=4")
        assert loaded.image_shape == (4, 4, 3)
        images, _ = data.arrays(loaded.train)
        np.testing.assert_allclose(images, 102 / 255, atol=5 / 255)

    def test_size_makes_images_alike(self, tree):
        write(tree / "dog" / "large.png", image(50, 30, 40))
        loaded = data.load(f"folder:{tree}:size=8")
        assert loaded.image_shape == (8, 8, 3) and len(loaded.test) == 4

    def test_streaming_gives_the_same_batches(self, tree):
        in_memory = data.load(f"folder:{tree}:size=7")
        stream = data.load(f"folder:{tree}:size=7:mode=streaming")
        assert stream.mode == "streaming"
        assert stream.describe().endswith("2 classes; streaming")
        for batches in (
            lambda set: data.training_batches(
                set.train, 4, augment="crop,flip"
            ),
            lambda set: data.training_batches(set.train, 4, start_step=2),
            lambda set: data.evaluation_batches(set.test, 3),
        ):
            one, other = batches(in_memory), batches(stream)
            assert one.element_spec == other.element_spec
            assert one.cardinality() == other.cardinality()
            for batch, same in zip(one.take(7), other.take(7), strict=True):
                tf.nest.map_structure(
                    np.testing.assert_array_equal, batch, same
                )


class TestRefuses:
    def refused(self, root, message, options=""):
        with pytest.raises(ValueError, match=message) as error:
            data.load(f"folder:{root}{options}")
        assert "\n" not in str(error.value)

    def test_sizes_that_differ(self, tree):
        write(tree / "dog" / "99.png", image(99, 7, 5))
        self.refused(tree, "00.png has 6x5 pixels and .*99.png has 7x5.*:size=")

    @pytest.mark.parametrize("options", ["", ":size=4"])
    def test_kinds_that_differ(self, tree, options):
        write(tree / "dog" / "99.png", image(99, channels=1))
        self.refused(tree, "in colour and .*99.png is greyscale", options)

    def test_transparency(self, tree):
        write(tree / "dog" / "99.png", image(99, channels=4))
        self.refused(tree, "99.png has pixels of the kind RGBA")

    @pytest.mark.parametrize("options", ["", ":size=4"])
    @pytest.mark.parametrize(
        ("mode", "suffix"),
        [
            ("1", "png"),
            ("L", "png"),
            ("P", "png"),
            ("RGB", "png"),
            ("P", "gif"),
        ],
    )
    def test_a_transparent_colour(self, tree, mode, suffix, options):
        whole = Image.fromarray(image(99)).convert(mode)
        colour = whole.getpixel((0, 0))
        whole.save(tree / "dog" / f"99.{suffix}", transparency=colour)
        message = (
            f"99.{suffix} has pixels of the kind {mode} with transparency; "
            "expected greyscale or colour of 8 bits without transparency"
        )
        self.refused(tree, message, options)

    def test_a_palette_with_transparency_of_many_degrees(self, tree):
        whole = Image.fromarray(image(99)).convert("P")
        whole.save(tree / "dog" / "99.png", transparency=bytes(range(256)))
        self.refused(tree, "has pixels of the kind P with transparency; exp")

    def test_a_palette_without_transparency_is_taken(self, tree):
        for suffix in ("png", "gif"):
            whole = Image.fromarray(image(99)).convert("P")
            whole.save(tree / "dog" / f"99.{suffix}")
        assert len(data.load(f"folder:{tree}").test) == 4

    @pytest.mark.parametrize(
        ("colour", "kind"), [(0, "I;16"), (2, "RGB of 16")]
    )
    def test_16_bits(self, tree, colour, kind):
        # Pillow writes none in colour.
        pixels = np.zeros([6, 1 + 5 * 2 * (1 + colour)], np.uint8)
        chunks = {
            b"IHDR": struct.pack(">IIBBBBB", 5, 6, 16, colour, 0, 0, 0),
            b"IDAT": zlib.compress(pixels.tobytes()),
            b"IEND": b"",
        }
        content = b"\x89PNG\r\n\x1a\n"
        for name, chunk in chunks.items():
            content += struct.pack(">I", len(chunk)) + name + chunk
            content += struct.pack(">I", zlib.crc32(name + chunk))
        (tree / "dog" / "99.png").write_bytes(content)
        self.refused(tree, f"99.png has pixels of the kind {kind}.*; expected")

    def test_a_file_that_is_no_image(self, tree):
        (tree / "dog" / "99.png").write_text("not an image")
        self.refused(tree, "99.png cannot be read as an image")

    def test_an_image_cut_short(self, tree):
        path = tree / "dog" / "99.png"
        write(path, image(99))
        path.write_bytes(path.read_bytes()[:70])
        self.refused(tree, "99.png cannot be read as an image")

    def test_folders_without_images(self, tree, tmp_path):
        empty = tmp_path / "empty"
        empty.mkdir()
        self.refused(empty, "empty holds 0 class folders; expected at least")
        (tree / "owl").mkdir()
        self.refused(tree, "owl holds no image; expected files that end in")
        with pytest.raises(ValueError, match="owl holds no image"):
            data.check(f"folder:{tree}")

    def test_one_half_alone(self, tree, tmp_path):
        root = tmp_path / "halves"
        shutil.copytree(tree, root / "train")
        self.refused(root, "holds train alone; expected both train and test")
        write(root / "test" / "owl" / "0.png", image(0))
        write(root / "test" / "cat" / "0.png", image(0))
        self.refused(root, "test holds the class 'owl', which .*train does")

    def test_too_few_images(self, tmp_path):
        write(tmp_path / "a" / "0.png", image(0))
        write(tmp_path / "b" / "0.png", image(1))
        self.refused(tmp_path, "has 2 training images; expected at least 3")


def test_a_path_may_hold_colons_and_a_home(tree, monkeypatch):
    odd = tree.parent / "a:b"
    tree.rename(odd)
    assert len(data.load(f"folder:{odd}:size=4").test) == 4
    monkeypatch.setenv("HOME", str(odd.parent))
    data.check("folder:~/a:b")
    assert list(names.class_folders("~/a:b")[0]) == ["cat", "dog"]


class TestImagesBelow:
    def test_links_are_followed_once(self, tree, tmp_path):
        root = tmp_path / "pool"
        root.mkdir()
        (root / "pets").symlink_to(tree)
        (root / "again").symlink_to(tree / "dog")
        (tree / "cat" / "up").symlink_to(root)
        paths = names.images_below(root)
        assert len(paths) == 20 == len({os.path.realpath(p) for p in paths})
        # By the first of the two ways to the dogs.
        assert sum("/again/" in path for path in paths) == 8
        assert len(data.load_pool(f"folder:{root}")) == 20

    def test_what_cannot_be_read_is_not_left_out(self):
        # pytest's own folders are root's alone, where root runs the tests.
        with tempfile.TemporaryDirectory() as root:
            os.chmod(root, 0o755)
            write(pathlib.Path(root, "cat", "0.png"), image(0))
            os.mkdir(pathlib.Path(root, "dog"), 0)
            with (
                _without_rights(),
                pytest.raises(ValueError, match="/dog cannot be read .Permiss"),
            ):
                names.images_below(root)


@contextlib.contextmanager
def _without_rights():
    """The rights of nobody, where the tests run with those of root."""
    user = os.geteuid()
    if not user:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
