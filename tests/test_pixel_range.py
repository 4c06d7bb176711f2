"""A model of pixels in [0, 255] through every program, and as it is served."""

import io
import json

import keras
import numpy as np
from PIL import Image
import programs
import pytest
import rich.console

import mart_tf
from mart_tf import data
from mart_tf.models import declared
from mart_tf.runs import config as run_config
from mart_tf.runs import run
from mart_tf.runs import workdir
from mart_tf.serving import verification

NETWORKS = """
import keras

def _linear(input_shape, num_classes, *more):
    scores = keras.layers.Dense(num_classes, kernel_initializer="zeros")
    return keras.Sequential(
        [keras.Input(input_shape), keras.layers.Flatten(), scores, *more]
    )

def plain(input_shape, num_classes):
    return _linear(input_shape, num_classes)

def scaling(input_shape, num_classes):
    return keras.Sequential([
        keras.Input(input_shape),
        keras.layers.Rescaling(1 / 255),
        plain(input_shape, num_classes),
    ])

def softmax(input_shape, num_classes):
    return _linear(input_shape, num_classes, keras.layers.Softmax())
"""

# Unscaled, the gradients of a linear network's kernel are 255 times as large,
# and so is what they move.
RUNS = {
    "scaling": {"learning_rate": 0.5},
    "softmax": {"learning_rate": 0.5 / 255**2, "outputs": "probabilities"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run of each network on pixels in [0, 255]."""
    place = tmp_path_factory.mktemp("place")
    (place / "networks.py").write_text(NETWORKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.syspath_prepend(str(place))
        for name, settings in RUNS.items():
            said = train(name, pixel_max=255.0, **settings)
            # The digits' own 0.15, of 255.
            assert (
                "threat model linf, epsilon 38.25, pixels from 0 to 255\n"
                in said
            )
        train("plain", learning_rate=0.5)
        yield place


def train(name, **settings):
    """A run in this process; returns what the user saw."""
    config = run_config.Config(
        workdir=name,
        model=f"networks:{name}",
        defense="standard",
        attack_steps=2,
        epochs=2,
        batch_size=64,
        precision="float32",
        strategy="single",
        schedule="constant",
        **settings,
    ).resolved()
    output = io.StringIO()
    console = rich.console.Console(file=output, width=200)
    run.train(config, workdir.prepare(config), console)
    return output.getvalue()


def encoded(images):
    """Images in [0, 255] as PNG files, by Pillow."""
    files = np.empty(len(images), object)
    for row, image in enumerate(images):
        file = io.BytesIO()
        levels = np.rint(image.squeeze()).astype("uint8")
        Image.fromarray(levels).save(file, "PNG")
        files[row] = file.getvalue()
    return files


def digits():
    """Test images of grey levels, float32 in [0, 255], and labels."""
    images, labels = data.arrays(data.load("digits").test)
    return np.rint(255.0 * images), labels


def call(program, *arguments, cwd):
    done = programs.run(program, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_training_on_levels_equals_training_on_their_shares(place):
    # Linear, its input scaled inside: the same function of the same images.
    classifiers = [
        workdir.load_classifier(place / name, "last")[0]
        for name in ("scaling", "plain")
    ]
    one, other = (each.get_weights()[-2] for each in classifiers)
    assert np.abs(other).max() > 0.1
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_range_is_recorded(place):
    assert "--pixel_max=255.0" in (place / "scaling/flags.cfg").read_text()
    config = json.loads((place / "scaling/run.json").read_text())["config"]
    assert (config["pixel_min"], config["pixel_max"]) == (0.0, 255.0)
    assert config["epsilon"] == 38.25
    # A run of an earlier version did not say it.
    del config["pixel_min"], config["pixel_max"]
    assert run_config.Config(**config).pixel_max == 1.0


@pytest.mark.parametrize("name", RUNS)
def test_served_accuracy_of_encoded_images_is_that_of_keras(name, place):
    said = call("export", f"--workdir={name}", "--allow_code", cwd=place)
    assert "Threat model: linf, epsilon 38.25, pixels from 0 to 255" in said
    images, labels = digits()
    classifier, _, _ = workdir.load_classifier(place / name)
    scores = classifier.predict(images, verbose=0)
    accuracy = (scores.argmax(axis=1) == labels).mean()
    assert accuracy > 0.7
    [result] = verification.run(
        place / name / "export" / "1", [("image_bytes", encoded(images))]
    )
    np.testing.assert_array_equal(result["class_index"], scores.argmax(axis=1))
    assert (result["class_index"] == labels).mean() == accuracy
    card = json.loads(
        (place / name / "export/1/assets.extra/model_card.json").read_text()
    )
    assert card["model"]["pixel_range"] == [0.0, 255.0]
    assert card["training"]["pixel_max"] == 255.0
    verified = card["verification"]
    assert verified["served_accuracy"] == verified["trained_accuracy"]


@pytest.mark.parametrize("epsilon", [None, [], {}, "wide", [0.15]])
def test_a_card_with_a_radius_that_is_none_says_nothing(tmp_path, epsilon):
    card = {
        "model": {"pixel_range": [0, 1]},
        "training": {"norm": "linf", "epsilon": 0.15},
    }
    file = tmp_path / "assets.extra" / "model_card.json"
    file.parent.mkdir()
    (tmp_path / "saved_model.pb").touch()
    file.write_text(json.dumps(card))
    assert declared.read(tmp_path).epsilon == 0.15
    card["training"]["epsilon"] = epsilon
    file.write_text(json.dumps(card))
    assert declared.read(tmp_path) is None


def test_a_saved_model_and_a_file_bring_their_threat_model_along(
    place, tmp_path
):
    classifier, _, _ = workdir.load_classifier(place / "scaling")
    threat = mart_tf.ThreatModel("linf", 20.0, 0.0, 255.0)
    model = mart_tf.AdversarialClassifier(classifier, "standard", threat)
    model.save(tmp_path / "whole.keras")
    said = declared.read(tmp_path / "whole.keras")
    assert (said.pixel_range, said.norm, said.epsilon) == (
        (0.0, 255.0),
        "linf",
        20.0,
    )
    classifier.save(tmp_path / "plain.keras")
    assert declared.read(tmp_path / "plain.keras") is None

    said = call(
        "export",
        "--model=whole.keras",
        "--dataset=digits",
        "--attack_examples=50",
        cwd=tmp_path,
    )
    assert "epsilon 20, pixels from 0 to 255" in said
    assert "with PGD-20 on 50 test images" in said
    images, labels = digits()
    accuracy = (
        classifier.predict(images, verbose=0).argmax(axis=1) == labels
    ).mean()
    version = tmp_path / "whole.keras-export" / "1"
    [result] = verification.run(version, [("image_bytes", encoded(images))])
    assert (result["class_index"] == labels).mean() == accuracy

    call(
        "evaluate",
        "--model=whole.keras-export",
        "--dataset=digits",
        "--attacks=fgsm",
        cwd=tmp_path,
    )
    report = json.loads(
        (tmp_path / "whole.keras-export-evaluation/report.json").read_text()
    )
    assert report["threat_model"] == {
        "norm": "linf",
        "epsilon": 20.0,
        "pixel_min": 0.0,
        "pixel_max": 255.0,
    }
    assert report["natural"]["accuracy"] == pytest.approx(accuracy)


def test_labels_are_of_images_in_the_range(place, tmp_path):
    images, _ = digits()
    # Mirrored, for a pool must not hold test images.
    images = images[:50, :, ::-1]
    levels = images.astype("uint8")
    np.savez(tmp_path / "pool.npz", image=levels)
    said = call(
        "label",
        "--workdir=scaling",
        "--allow_code",
        f"--pool=npz:{tmp_path / 'pool.npz'}",
        f"--output={tmp_path / 'labeled.npz'}",
        cwd=place,
    )
    assert "--pixel_max=255" in said
    classifier, _, _ = workdir.load_classifier(place / "scaling")
    expected = classifier.predict(images, verbose=0).argmax(axis=1)
    assert len(set(expected)) > 5
    with np.load(tmp_path / "labeled.npz") as labeled:
        np.testing.assert_array_equal(labeled["label"], expected)


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("evaluate", []),
        ("export", []),
        ("label", ["--pool=npz:pool.npz", "--output=labeled.npz"]),
    ],
)
def test_a_run_in_another_range_is_refused(program, arguments, place):
    process = programs.run(
        program,
        "--workdir=scaling",
        "--allow_code",
        "--pixel_max=1",
        *arguments,
        cwd=place,
        tensorflow=False,
    )
    programs.assert_refused(
        process,
        "--pixel_max is 1, and scaling takes pixels from 0 to 255; leave it",
    )


@pytest.mark.parametrize(
    ("program", "arguments", "sentence"),
    [
        ("train", ["--pixel_min=1"], "--pixel_min is 1 and --pixel_max 1; ex"),
        (
            "train",
            ["--pixel_max=255", "--epsilon=256"],
            "linf at most 255, the range of the pixels, 0 to 255",
        ),
        (
            "train",
            ["--model=whole.keras"],
            "takes pixels from 0 to 255, not from 0 to 1; give --pixel_min=0 "
            "--pixel_max=255",
        ),
        (
            "evaluate",
            ["--model=whole.keras", "--dataset=digits", "--pixel_max=1"],
            "--pixel_max is 1, and the AdversarialClassifier in whole.keras "
            "takes pixels from 0 to 255",
        ),
        (
            "evaluate",
            ["--model=whole.keras", "--dataset=digits", "--norm=l2"],
            "--norm=l2 needs an --epsilon: that of whole.keras, 8, is a radius",
        ),
        (
            "export",
            ["--model=plain.keras"],
            "does not tell the range of its pixels; give --pixel_min and",
        ),
        (
            "export",
            ["--model=whole.keras", "--workdir=scaling"],
            "--workdir=scaling is of a run, and --model=whole.keras names",
        ),
        ("export", ["--model=gone.keras"], "no .keras file that is there"),
    ],
)
def test_refusals(program, arguments, sentence, tmp_path):
    network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    network.add(keras.layers.Dense(10))
    network.save(tmp_path / "plain.keras")
    threat = mart_tf.ThreatModel("linf", 8.0, 0.0, 255.0)
    model = mart_tf.AdversarialClassifier(network, threat=threat)
    model.save(tmp_path / "whole.keras")
    process = programs.run(program, *arguments, cwd=tmp_path, tensorflow=False)
    programs.assert_refused(process, sentence)


def test_the_library_refuses_another_range(tmp_path):
    network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    network.add(keras.layers.Dense(10))
    threat = mart_tf.ThreatModel("linf", 8.0, 0.0, 255.0)
    model = mart_tf.AdversarialClassifier(network, threat=threat)
    model.save(tmp_path / "whole.keras")
    images, labels = digits()
    for given in (model, tmp_path / "whole.keras"):
        with pytest.raises(ValueError, match=r"trained on pixels in \[0, 255"):
            mart_tf.evaluate_robustness(
                given,
                (images[:8] / 255.0, labels[:8]),
                mart_tf.ThreatModel(epsilon=8 / 255),
                ["fgsm"],
            )


GREY = mart_tf.ThreatModel("linf", 8.0, 0.0, 255.0)
SHARES = np.random.default_rng(0).random((4, 8, 8, 1)).astype("float32")


@pytest.mark.parametrize(
    ("images", "threat"),
    [
        (SHARES, GREY),
        (SHARES, mart_tf.ThreatModel("linf", 8.0, -128.0, 127.0)),
        # Dark images, divided by 255 all the same.
        (SHARES / 255, GREY),
        (SHARES, mart_tf.ThreatModel("linf", 1.0, 0.0, 16.0)),
    ],
)
def test_shares_given_to_a_threat_model_of_levels(images, threat):
    with pytest.raises(ValueError, match="ages lie in .* where the threat mod"):
        mart_tf.evaluate_robustness(
            lambda images: images[:, 0, :3, 0],
            (images, np.zeros(4, int)),
            threat,
            ["fgsm"],
        )
    network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    network.add(keras.layers.Dense(3))
    model = mart_tf.AdversarialClassifier(network, threat=threat)
    model.compile()
    with pytest.raises(ValueError, match="images in .0, 1. are spread over"):
        model.fit(images, np.zeros(4, int))


@pytest.mark.parametrize(
    ("images", "threat"),
    [
        # Dark: the levels 0 and 1; blank: one value; one pixel brighter.
        (np.rint(SHARES), GREY),
        (np.zeros_like(SHARES), GREY),
        (np.full_like(SHARES, 0.5), GREY),
        (np.where(np.arange(8)[:, None] == 7, np.float32(2), SHARES), GREY),
        # Bright images of a narrow range.
        (SHARES, mart_tf.ThreatModel("linf", 0.1, -1.0, 1.0)),
        (SHARES, mart_tf.ThreatModel("linf", 0.1, 0.0, 2.0)),
    ],
)
def test_images_that_may_be_levels(images, threat):
    mart_tf.evaluate_robustness(
        lambda images: images[:, 0, :3, 0] * 3.0,
        (images, np.zeros(4, int)),
        threat,
        ["fgsm"],
    )
