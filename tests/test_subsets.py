"""Figure 1: subsets picked by a network, their file, the defense on them."""

import resource

import keras
import linear
import numpy as np
import pytest
import tensorflow as tf

from mart_tf import data
from mart_tf import defenses
from mart_tf import labeling
from mart_tf.data import splits
from mart_tf.defenses import base
from mart_tf.labeling import subsets
from mart_tf.runs import devices

TEXT = """\
# Training examples of a data set, one a line.
# dataset: digits
# training images: 20
# rows below: 30
# picked by: runs/first, best weights, epoch 3
row,label,predicted
2,1,0
7,0,1
29,2,1
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "chosen.csv"
    path.write_text(TEXT, encoding="utf-8")
    return path


def some_examples(**changed):
    values = {
        "dataset": "digits",
        "images": 20,
        "bound": 30,
        "picked_by": "runs/first, best weights, epoch 3",
        "rows": np.array([2, 7, 29]),
        "labels": np.array([1, 0, 2]),
        "predicted": np.array([0, 1, 1]),
    }
    return subsets.Examples(**values | changed)


class TestFile:
    def test_is_written_as_a_person_reads_it(self, tmp_path):
        folder = tmp_path / "new" / "folder"
        subsets.write(folder, some_examples(), some_examples(images=21))
        assert (folder / "wrong.csv").read_text("utf-8") == TEXT
        right = (folder / "right.csv").read_text("utf-8")
        assert right == TEXT.replace("images: 20", "images: 21")
        assert [path.name for path in folder.parent.iterdir()] == ["folder"]

    def test_is_read_as_it_was_written(self, file):
        chosen = subsets.read(file)
        assert chosen.rows.dtype == np.int64
        assert chosen.rows.tolist() == [2, 7, 29]
        assert chosen.labels.tolist() == [1, 0, 2]
        assert chosen.predicted.tolist() == [0, 1, 1]
        assert (chosen.dataset, chosen.images, chosen.bound, len(chosen)) == (
            ("digits", 20, 30, 3)
        )
        assert chosen.picked_by == "runs/first, best weights, epoch 3"

    @pytest.mark.parametrize(
        "old, new, fault",
        [
            (TEXT, "", "no line row,label,predicted"),
            (TEXT, "\x00\n", "no line row,label,predicted"),
            ("row,label,", "row,", "no line row,label,predicted"),
            ("7,0,1", "7,0", "example 2 is '7,0', not three whole numbers"),
            ("7,0,1", "7,0.5,1", "example 2 is '7,0.5,1'"),
            ("7,0,1", "-7,0,1", "example 2 is '-7,0,1'"),
            ("7,0,1", "2,0,1", "its rows do not rise"),
            ("7,0,1", "1,0,1", "its rows do not rise"),
            ("29,2,1", "30,2,1", "not below 30"),
            ("7,0,1", f"{10**30},0,1", "too large"),
            ("2,1,0\n7,0,1\n29,2,1\n", "", "no example"),
            ("# dataset: digits\n", "", "no line '# dataset: ...'"),
            ("images: 20", "images: many", "training images is 'many'"),
            ("below: 30", "below:", "no line '# rows below: ...'"),
        ],
    )
    def test_damage_is_named(self, tmp_path, old, new, fault):
        path = tmp_path / "damaged.csv"
        path.write_text(TEXT.replace(old, new), encoding="utf-8")
        with pytest.raises(ValueError) as caught:
            subsets.read(path)
        message = str(caught.value)
        assert message.startswith(f"Subset file {path} is damaged (")
        assert fault in message
        assert "\n" not in message

    def test_not_text(self, tmp_path):
        path = tmp_path / "image.csv"
        path.write_bytes(b"\x89PNG\r\n\x1a\n")
        with pytest.raises(ValueError, match="image.csv is damaged"):
            subsets.read(path)

    def test_missing(self, tmp_path):
        with pytest.raises(ValueError, match="There is no subset file"):
            subsets.read(tmp_path / "absent.csv")

    @pytest.mark.parametrize(
        "images, dataset, sentence",
        [
            (20, "mnist", "of digits, with 20 training images, and mnist has"),
            (21, "digits", "with 20 training images, and digits has 21"),
            (21, None, "and the training data has 21"),
        ],
    )
    def test_of_another_data_set(self, file, images, dataset, sentence):
        chosen = subsets.read(file)
        with pytest.raises(ValueError, match=sentence):
            subsets.check_data(file, chosen, images, 30, dataset)
        with pytest.raises(ValueError, match="counts rows below 30"):
            subsets.check_data(file, chosen, 20, 20)
        subsets.check_data(file, chosen, 20, 30, "digits")
        subsets.check_data(file, chosen, 20, 30)

    def test_nothing_is_overwritten(self, tmp_path):
        (tmp_path / "mine").write_text("mine")
        (tmp_path / "empty").mkdir()
        for folder in (tmp_path, tmp_path / "mine"):
            with pytest.raises(ValueError, match="exists already"):
                subsets.write(folder, some_examples(), some_examples())
        with pytest.raises(ValueError, match="mine is not a folder"):
            subsets.check_folder(tmp_path / "mine" / "below")
        assert (tmp_path / "mine").read_text() == "mine"
        subsets.write(tmp_path / "empty", some_examples(), some_examples())
        assert len(subsets.read(tmp_path / "empty" / "right.csv")) == 3

    def test_a_link_to_an_empty_folder(self, tmp_path):
        (tmp_path / "empty").mkdir()
        (tmp_path / "link").symlink_to("empty")
        subsets.write(tmp_path / "link", some_examples(), some_examples())
        assert (tmp_path / "link").is_symlink()
        written = sorted(path.name for path in (tmp_path / "empty").iterdir())
        assert written == ["right.csv", "wrong.csv"]

    def test_a_disk_without_room(self, tmp_path):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(TEXT) - 1, hard))
        try:
            with pytest.raises(OSError):
                subsets.write(tmp_path / "a", some_examples(), some_examples())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not list(tmp_path.iterdir())


def network_that_reads_labels(wrong_rows):
    """Right on every digit but those rows: it compares images."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    flat = bunch.data.astype("float32") / 16.0
    answers = bunch.target.copy()
    answers[wrong_rows] = (answers[wrong_rows] + 1) % 10
    inputs = keras.Input([8, 8, 1])
    # The nearest image is the one of the greatest <x, x_i> - |x_i|^2 / 2.
    nearest = keras.layers.Dense(len(flat), name="nearest")
    sharp = keras.layers.Softmax()
    classes = keras.layers.Dense(10, use_bias=False, name="classes")
    x = nearest(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, classes(sharp(keras.layers.Rescaling(1e3)(x))))
    nearest.set_weights([flat.T, -0.5 * (flat**2).sum(1)])
    classes.set_weights([np.eye(10, dtype="float32")[answers]])
    return model


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


class TestPicking:
    def pick(self, digits, folder, wrong, **settings):
        return labeling.pick_subsets(
            network_that_reads_labels(wrong),
            digits.train,
            folder,
            dataset=digits.name,
            picked_by="a test",
            **settings,
        )

    def test_all_that_are_wrong_and_as_many_that_are_right(
        self, digits, tmp_path
    ):
        # Rows of the validation and the test split are nobody's choice.
        mistaken = np.arange(0, 1797, 17)
        wrong, right = self.pick(
            digits, tmp_path / "a", mistaken, batch_size=100
        )
        expected = np.intersect1d(mistaken, digits.train.indices)
        assert 0 < len(expected) < len(mistaken)
        assert wrong.rows.tolist() == expected.tolist()
        assert (wrong.predicted == (wrong.labels + 1) % 10).all()
        others = np.setdiff1d(digits.train.indices, mistaken)
        assert len(right) == len(wrong)
        assert np.isin(right.rows, others).all()
        assert (right.predicted == right.labels).all()
        labels = dict(
            zip(digits.train.indices, digits.train.labels, strict=True)
        )
        for part in (wrong, right):
            assert part.labels.tolist() == [labels[row] for row in part.rows]
            assert part.images == len(digits.train)
            assert part.bound == digits.train.indices.max() + 1
        # Spread over the rows, not their beginning.
        assert right.rows.mean() == pytest.approx(others.mean(), rel=0.15)

        # The same again, in other batches; the files say the same.
        again = self.pick(digits, tmp_path / "b", mistaken, batch_size=7)
        for name, part in zip(("wrong.csv", "right.csv"), again, strict=True):
            a, b = (tmp_path / folder / name for folder in "ab")
            assert a.read_bytes() == b.read_bytes()
            assert subsets.read(a).rows.tolist() == part.rows.tolist()

    def test_data_that_is_not_in_the_order_of_its_rows(self, digits, tmp_path):
        shuffled = digits.train.select(
            splits.carve(np.arange(len(digits.train)), 900, 9)[::-1]
        )
        mistaken = shuffled.indices[::30]
        wrong, _ = labeling.pick_subsets(
            network_that_reads_labels(mistaken),
            shuffled,
            tmp_path / "new",
            dataset="digits",
            picked_by="a test",
        )
        assert wrong.rows.tolist() == sorted(mistaken)

    def test_scores_that_are_no_numbers_are_refused(self, digits, tmp_path):
        model = keras.Sequential(
            [
                keras.Input(digits.image_shape),
                keras.layers.Flatten(),
                keras.layers.Dense(
                    10, bias_initializer=keras.initializers.Constant(np.nan)
                ),
            ]
        )
        with pytest.raises(ValueError, match="NaN for the training image of"):
            labeling.pick_subsets(
                model,
                digits.train,
                tmp_path / "new",
                dataset="digits",
                picked_by="a test",
            )
        assert not (tmp_path / "new").exists()

    def test_nothing_is_wrong(self, digits, tmp_path):
        with pytest.raises(ValueError, match="misclassifies none of the 1294"):
            self.pick(digits, tmp_path / "new", [])
        assert not (tmp_path / "new").exists()

    def test_fewer_are_right_than_wrong(self, digits, tmp_path):
        with pytest.raises(ValueError, match="right on half of them"):
            self.pick(digits, tmp_path / "new", np.arange(1000))
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize(
        ("network", "message"),
        [
            (lambda images: images, "a function; expected a keras.Model"),
            (
                keras.Sequential(
                    [keras.Input((4, 4, 1)), keras.layers.Flatten()]
                ),
                r"inputs of shape \(None, 4, 4, 1\); the images of the data",
            ),
            (keras.Sequential([keras.layers.Conv2D(3, 9)]), "fails on the im"),
            (keras.Sequential([keras.layers.Conv2D(3, 2)]), "returns shape"),
        ],
    )
    def test_a_network_that_cannot_pick(
        self, digits, tmp_path, network, message
    ):
        with pytest.raises(ValueError, match=message):
            labeling.pick_subsets(
                network,
                digits.train,
                tmp_path / "new",
                dataset="digits",
                picked_by="a test",
            )
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize("given", ["", " ", "one\ntwo", None])
    def test_a_name_that_no_line_of_a_file_holds(self, digits, tmp_path, given):
        with pytest.raises(ValueError, match="picked_by is .*one line of text"):
            labeling.pick_subsets(
                network_that_reads_labels([3]),
                digits.train,
                tmp_path / "new",
                dataset="digits",
                picked_by=given,
            )
        assert not (tmp_path / "new").exists()

    def test_a_folder_below_home(self, digits, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        self.pick(digits, "~/new", np.arange(0, 1797, 17))
        assert (tmp_path / "new" / "wrong.csv").is_file()

    def test_the_folder_exists(self, digits, tmp_path):
        (tmp_path / "mine").write_text("mine")
        with pytest.raises(ValueError, match="exists already"):
            self.pick(digits, tmp_path, [3])


# Of no member: rows beyond the data's, and -1, an example of evaluation.
ROWS = np.array([2, 3, 7, 29, -1, 30, 2**40, 0], np.int64)
CHOSEN = np.array([1, 0, 1, 1, 0, 0, 0, 0], bool)
IMAGES, LABELS = linear.IMAGES, linear.LABELS
TRUTH = linear.one_hot(LABELS)


def classify(images):
    return images @ linear.KERNEL + linear.BIAS


def ascend(adversarial, step):
    """One projected step on the cross-entropy, in numpy."""
    gradient = (linear.softmax_of(adversarial) - TRUTH) @ linear.KERNEL.T
    moved = adversarial + np.float32(step) * np.sign(gradient)
    low, high = np.maximum(IMAGES - 0.2, 0), np.minimum(IMAGES + 0.2, 1)
    return np.clip(moved, low, high).astype(np.float32)


def two_steps():
    """PGD from x with two steps of epsilon / 4."""
    return ascend(ascend(IMAGES, 0.05), 0.05)


def batch():
    return base.Batch(
        image=tf.constant(IMAGES),
        label=tf.constant(LABELS),
        weight=tf.ones([len(ROWS)]),
        example=tf.constant(ROWS),
        seeds=tf.zeros([len(ROWS), 2], tf.int64),
        memory={},
    )


INNER = base.InnerAttack(
    threat=linear.THREAT,
    steps=2,
    step_size=0.05,
    epsilon=0.2,
    random_start="none",
    epoch=tf.constant(0, tf.int64),
)


def subset(file, treatment, regularization=None):
    return defenses.get(
        f"subset:file={file}:treatment={treatment}"
        + (f":regularization={regularization}" if regularization else "")
    )


class TestDefense:
    @pytest.mark.parametrize("compiled", [False, True])
    def test_membership(self, file, compiled):
        contains = subset(file, "kl").contains
        if compiled:
            contains = tf.function(contains)
        assert contains(tf.constant(ROWS)).numpy().tolist() == CHOSEN.tolist()

    @pytest.mark.parametrize("treatment", ["natural", "fgsm", "kl"])
    def test_the_attack_by_hand(self, file, treatment):
        adversarial = subset(file, treatment).attack(classify, batch(), INNER)
        otherwise = {
            "natural": IMAGES,
            "fgsm": ascend(IMAGES, 0.2),
            "kl": two_steps(),
        }[treatment]
        expected = np.where(CHOSEN[:, None], otherwise, two_steps())
        np.testing.assert_allclose(adversarial.image, expected, atol=1e-6)

    def test_fgsm_follows_the_ramp_of_epsilon(self, file):
        inner = INNER._replace(
            epsilon=tf.constant(0.1), step_size=tf.constant(0.025)
        )
        adversarial = subset(file, "fgsm").attack(classify, batch(), inner)
        moved = np.abs(adversarial.image - IMAGES).max(1)
        assert moved[CHOSEN].max() == pytest.approx(0.1, abs=1e-6)
        assert moved[~CHOSEN].max() == pytest.approx(0.05, abs=1e-6)

    @pytest.mark.parametrize("treatment", ["natural", "fgsm"])
    def test_one_forward_pass_on_what_the_attack_found(self, file, treatment):
        seen = []

        def counting(images):
            seen.append(images)
            return classify(images)

        image = tf.constant(two_steps())
        losses = subset(file, treatment).loss(
            counting, batch(), base.Adversarial(image)
        )
        assert len(seen) == 1
        assert seen[0] is image
        p = linear.softmax_of(two_steps())[TRUTH == 1]
        np.testing.assert_allclose(losses.values, -np.log(p), atol=1e-6)
        assert losses.natural_logits is None
        # Of natural and adversarial examples together no accuracy is logged.
        assert (losses.adversarial_logits is None) == (treatment == "natural")

    def test_the_divergence_weighs_on_the_subset_alone(self, file):
        seen = []

        def counting(images):
            seen.append(images)
            return classify(images)

        image = tf.constant(two_steps())
        losses = subset(file, "kl", 3.0).loss(
            counting, batch(), base.Adversarial(image)
        )
        assert [images is image for images in seen] == [False, True]
        p, q = linear.softmax_of(IMAGES), linear.softmax_of(two_steps())
        expected = -np.log(q[TRUTH == 1])
        expected += 3.0 * CHOSEN * (p * np.log(p / q)).sum(1)
        np.testing.assert_allclose(losses.values, expected, atol=1e-6)
        # numpy's and TensorFlow's products differ in their last bits.
        np.testing.assert_allclose(
            losses.natural_logits, classify(IMAGES), atol=1e-5
        )
        np.testing.assert_allclose(
            losses.adversarial_logits, classify(image), atol=1e-5
        )

    def test_the_default_regularization_and_the_config(self, file):
        assert subset(file, "kl").get_config() == {
            "file": str(file),
            "treatment": "kl",
            "regularization": 4.0,
        }
        plain = defenses.Subset(file=file)
        again = defenses.Subset.from_config(plain.get_config())
        assert again.get_config() == {
            "file": str(file),
            "treatment": "natural",
            "regularization": None,
        }

    @pytest.mark.parametrize(
        "options, sentence",
        [
            ("", "names no file; expected subset:file=PATH"),
            (":treatment=fgms", "did you mean 'fgsm'"),
            (":file=FILE:regularization=2", "no divergence to weigh"),
            (
                ":file=FILE:treatment=kl:regularization=-1",
                "is -1; expected a number",
            ),
        ],
    )
    def test_refuses_options(self, file, options, sentence):
        spec = f"subset{options}".replace("FILE", str(file))
        with pytest.raises(ValueError, match=sentence):
            defenses.get(spec)

    def test_refuses_a_treatment_in_python(self, file):
        with pytest.raises(ValueError, match="did you mean 'kl'"):
            defenses.Subset(file=file, treatment="kll")

    def test_refuses_another_data_set(self, file):
        with pytest.raises(ValueError, match="of digits, with 20"):
            subset(file, "natural").check_data(20, 30, "mnist")
        subset(file, "natural").check_data(20, 30, "digits")


@pytest.fixture
def trained_file(tmp_path):
    """Every second example of the batch that `linear` trains on."""
    rows = np.sort(linear.ROWS[::2])
    nobody = np.zeros_like(rows)
    examples = some_examples(
        images=linear.EXAMPLES,
        bound=1000,
        rows=rows,
        labels=nobody,
        predicted=nobody,
    )
    subsets.write(tmp_path / "trained", examples, examples)
    return tmp_path / "trained" / "wrong.csv"


MEMBERS = np.isin(linear.ROWS, linear.ROWS[::2])[:, None]


def assert_step(strategy, file, treatment, expected):
    mine = linear.train_once(
        strategy, f"subset:file={file}:treatment={treatment}"
    )
    for weights, by_hand in zip(mine, expected, strict=True):
        np.testing.assert_allclose(weights, by_hand, atol=1e-6)


class TestTrainingStep:
    @pytest.mark.parametrize("treatment", ["natural", "fgsm"])
    def test_other_images(self, strategy, trained_file, treatment):
        otherwise = IMAGES if treatment == "natural" else ascend(IMAGES, 0.2)
        adversarial = np.where(
            MEMBERS, otherwise, linear.attack_by_hand(linear.ROWS)
        )
        part = linear.softmax_of(adversarial) - TRUTH
        expected = linear.update(0.0, part, adversarial)
        assert_step(strategy, trained_file, treatment, expected)

    def test_another_loss(self, strategy, trained_file):
        adversarial = linear.attack_by_hand(linear.ROWS)
        p, q = linear.softmax_of(IMAGES), linear.softmax_of(adversarial)
        ratio = np.log(p / q)
        natural = p * (ratio - (p * ratio).sum(1, keepdims=True))
        expected = linear.update(
            4.0 * MEMBERS * natural,
            q - TRUTH + 4.0 * MEMBERS * (q - p),
            adversarial,
        )
        assert_step(strategy, trained_file, "kl", expected)

    @pytest.mark.parametrize(
        "treatment, logged",
        [
            ("natural", set()),
            ("fgsm", {"robust_accuracy"}),
            ("kl", {"natural_accuracy", "robust_accuracy"}),
        ],
    )
    def test_what_is_logged(self, trained_file, treatment, logged):
        model, logs = linear.train(
            devices.strategy("single"),
            f"subset:file={trained_file}:treatment={treatment}",
        )
        assert set(logs) == {"loss"} | logged
        logs = model.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
        assert set(logs) == {"loss", "natural_accuracy", "robust_accuracy"}

    def test_evaluation_has_no_subset(self, trained_file):
        # Rows 0 to 7 of these arrays are not the rows of the training data.
        rows = np.arange(linear.EXAMPLES)
        everyone = some_examples(rows=rows, labels=rows, predicted=rows)
        subsets.write(trained_file.parent / "all", everyone, everyone)
        file = trained_file.parent / "all" / "wrong.csv"
        losses = []
        for defense in (f"subset:file={file}:treatment=kl", "standard"):
            model, _ = linear.train(devices.strategy("single"), defense)
            model.classifier.set_weights([linear.KERNEL, linear.BIAS])
            logs = model.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
            losses.append(logs["loss"])
        assert losses[0] == pytest.approx(losses[1], abs=1e-6)

    def test_arrays_of_another_length(self, trained_file):
        model, _ = linear.train(
            devices.strategy("single"), f"subset:file={trained_file}"
        )
        with pytest.raises(ValueError, match="and the training data has 7"):
            model.fit(IMAGES[:7], LABELS[:7], verbose=0)

    def test_is_saved_and_loaded(self, trained_file, tmp_path):
        model, _ = linear.train(
            devices.strategy("single"), f"subset:file={trained_file}"
        )
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert loaded.defense.get_config() == model.defense.get_config()
        # Only training asks for the file.
        trained_file.unlink()
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        loaded.predict(IMAGES, verbose=0)
        with pytest.raises(ValueError, match="There is no subset file"):
            loaded.fit(IMAGES, LABELS, verbose=0)
