"""Packaging of mart_tf; the readme and the build folder are in setup.cfg."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
NOT_SHARED = {"BUILD", "__pycache__"}


def version():
    """Read from the source, so that a build does not import the package."""
    text = (ROOT / "mart_tf" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]


def shared_files(*folders):
    """Recipes, serving kit and docs, for `<prefix>/share/mart_tf`."""
    files = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            name = path.relative_to(ROOT)
            if path.is_file() and not NOT_SHARED & set(name.parts):
                place = pathlib.PurePosixPath("share/mart_tf", *name.parts[:-1])
                files.setdefault(str(place), []).append(str(name))
    return list(files.items())


TENSORFLOW = ">=2.21,<2.22"
# The site and its test.
DOCS = [
    "mkdocs>=1.6.1,<2",
    "mkdocs-material>=9.8.2,<10",
    "mkdocstrings[python]>=1.0.8,<2",
]

# Optional: what writes and runs files of other formats; logs of runs.
LITERT = ["ai-edge-litert>=2.1,<3"]
ONNX = ["onnx>=1.20,<2", "onnxruntime>=1.23,<2", "tf2onnx>=1.17,<1.18"]
TENSORBOARD = ["tensorboard>=2.20,<3"]
# What benchmarks compare with, as it was tried.
BENCHMARKS = [
    "adversarial-robustness-toolbox>=1.20.1,<2",
    "torch>=2.14.1,<3",
]
# For examples/trackers.py, as they were tested; MLflow's own database with it.
MLFLOW = ["alembic>=1.20,<2", "mlflow-skinny>=3.17,<4", "sqlalchemy>=2.1,<3"]
WANDB = ["wandb>=0.31,<1"]

setuptools.setup(
    name="mart-tf",
    version=version(),
    description="Adversarial training for Keras: train, evaluate, export.",
    author="The mart_tf authors",
    license="Apache-2.0",
    keywords=[
        "adversarial examples",
        "adversarial training",
        "AutoAttack",
        "Keras",
        "MART",
        "PGD",
        "robustness",
        "TensorFlow",
        "TRADES",
    ],
    project_urls={"Paper": "https://openreview.net/forum?id=rklOg6EFwS"},
    classifiers=[
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Topic :: Security",
        "Typing :: Typed",
    ],
    packages=setuptools.find_packages(include=["mart_tf", "mart_tf.*"]),
    package_data={
        "mart_tf": ["py.typed"],
        "mart_tf.reports": ["*.jinja", "*.json"],
    },
    # TensorFlow 2.21 has no wheel for Python 3.14.
    python_requires=">=3.11,<3.14",
    # The programs and a part of the tests ran with the lower bounds, all at
    # once, on Python 3.11.
    install_requires=[
        "absl-py>=2.1,<3",
        "cleverhans>=4.0,<5",
        "h5py>=3.12.1,<4",
        # TensorFlow Datasets needs it and does not say so.
        "importlib_resources>=6.4",
        "jinja2>=3.1.6,<4",
        # mart_tf/private.py: another minor needs its tests.
        "keras>=3.15,<3.16",
        "matplotlib>=3.9.2,<4",
        "numpy>=2.1,<3",
        "pillow>=11,<14",
        "rich>=14.3,<16",
        "scikit-learn>=1.6,<2",
        "tensorflow" + TENSORFLOW,
        "tensorflow-datasets>=4.9.10,<5",
    ],
    extras_require={
        "benchmarks": BENCHMARKS,
        "docs": DOCS,
        "gpu": ["tensorflow[and-cuda]" + TENSORFLOW],
        "litert": LITERT,
        "mlflow": MLFLOW,
        "onnx": ONNX,
        "tensorboard": TENSORBOARD,
        "test": [
            *DOCS,
            *LITERT,
            *ONNX,
            *TENSORBOARD,
            "check-jsonschema>=0.39,<1",
            "hypothesis>=6.170,<7",
            "jsonschema>=4.26,<5",
            "kubeflow-training>=1.9.4,<2",
            "kubernetes-validate>=1.37,<2",
            "mypy>=2.4,<3",
            "optuna>=5,<6",
            "pytest>=9.2",
            "pytest-xdist>=3.8",
            "pyyaml>=6.0.3,<7",
            "ruff>=0.17,<0.18",
            "tensorflow-serving-api>=2.21,<2.22",
        ],
        "wandb": WANDB,
    },
    entry_points={
        "console_scripts": [
            "mart-train=mart_tf.entry:train",
            "mart-evaluate=mart_tf.entry:evaluate",
            "mart-export=mart_tf.entry:export",
            "mart-label=mart_tf.entry:label",
        ]
    },
    data_files=shared_files("flags", "export", "docs", "examples"),
)
