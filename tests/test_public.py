"""What is public, by name; each with a docstring that names its parameters."""

import importlib
import inspect
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# A name that is missing here is no promise; one that goes breaks users.
PUBLIC = {
    "mart_tf": """AdversarialClassifier ThreatModel attacks data defenses
        evaluate_robustness evaluation export_saved_model labeling load_run
        losses models train_run""",
    "mart_tf.attacks": """APGD ATTACKS Attack AutoAttack CW
        CarliniWagnerL2 FAB FGSM MomentumPGD PGD SPSA Square TargetedAPGD
        ascent_step check_settings
        create dlr fgsm input_gradient margin nearest_crossing objective pgd
        pgd_until_stationary resolve targeted_dlr""",
    "mart_tf.data": """AUGMENTATIONS Augmentation Crop Cutout DEFAULTS
        Dataset Defaults Flip POOLS Pool RandAugment SOURCES Source
        arrays check check_apart check_fit check_pool defaults
        evaluation_batches load load_pool memory_split rows sample spread
        steps_per_epoch training_batches""",
    "mart_tf.defenses": """ALP Adversarial Batch CLP DEFENSES DERIVED Defense
        Dynamic FGSMRS InnerAttack Losses MART MMA NFGSM Natural Standard
        Subset TRADES UAT complete get""",
    "mart_tf.evaluation": """DEFAULT Instance NATURAL Report Result Subject
        TRANSFER create is_transfer resolve""",
    "mart_tf.labeling": "label_pool pick_subsets",
    "mart_tf.models": """MODELS application build cnn4 cnn8 digits_cnn
        preact_resnet18 resnet18 resnet50 small_cnn wide_resnet""",
    "mart_tf.training": """OPTIMIZERS OPTIMIZER_RESERVED SCHEDULES
        AWP SCHEDULE_RESERVED UPDATES Update""",
}
LOSSES = """adversarial_logit_pairing boosted_cross_entropy
    clean_logit_pairing cross_entropy kl_divergence mart soft_margin trades
    uat"""


@pytest.mark.parametrize("package", PUBLIC)
def test_a_package_shows_what_is_public(package):
    assert dir(importlib.import_module(package)) == sorted(
        PUBLIC[package].split()
    )


def _documented():
    for package, names in PUBLIC.items():
        for name in names.split():
            yield package, name
    for name in LOSSES.split():
        yield "mart_tf.losses", name


@pytest.mark.parametrize("package, name", _documented())
def test_a_docstring_names_every_parameter(package, name):
    thing = getattr(importlib.import_module(package), name)
    if not callable(thing):
        # A module, a table, a list.
        return
    # A class's own: an inherited one speaks of another.
    text = thing.__doc__
    assert text
    for parameter in inspect.signature(thing).parameters:
        assert re.search(rf"\b{parameter}\b", text), parameter


def test_what_documents_name_is_there():
    # CONTRIBUTING.md names files to write.
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    names = set(re.findall(r"\bmart_tf(?:\.[A-Za-z_]+)+", text))
    assert "mart_tf.evaluate_robustness" in names
    for name in names:
        thing = importlib.import_module("mart_tf")
        for part in name.split(".")[1:]:
            if not hasattr(thing, part):
                importlib.import_module(f"{thing.__name__}.{part}")
            thing = getattr(thing, part)
