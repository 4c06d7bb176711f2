"""Packaging of mart_tf; the readme and the build folder are in setup.cfg."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent


def version():
    """Read from the source, so that a build does not import the package."""
    text = (ROOT / "mart_tf" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]


def shared_files(*folders):
    """The recipes and the serving kit, for `<prefix>/share/mart_tf`."""
    files = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to(ROOT)
                place = pathlib.PurePosixPath("share/mart_tf", *name.parts[:-1])
                files.setdefault(str(place), []).append(str(name))
    return list(files.items())


TENSORFLOW = ">=2.21,<2.22"

setuptools.setup(
    name="mart-tf",
    version=version(),
    description="Adversarial training for Keras: train, evaluate, export.",
    license="Apache-2.0",
    classifiers=[
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    packages=setuptools.find_packages(include=["mart_tf", "mart_tf.*"]),
    package_data={"mart_tf.evaluation.reporting": ["*.jinja", "*.json"]},
    python_requires=">=3.11",
    # The lower bounds are the versions that the tests ran with.
    install_requires=[
        "absl-py>=2.5,<3",
        "cleverhans>=4.0,<5",
        "h5py>=3.14,<4",
        # TensorFlow Datasets needs it and does not say so.
        "importlib_resources>=7.1",
        "jinja2>=3.1.6,<4",
        # Private hooks of Keras are used: another minor needs the tests.
        "keras>=3.15,<3.16",
        "matplotlib>=3.11,<4",
        "numpy>=2.4,<3",
        "pillow>=13,<14",
        "rich>=15,<16",
        "scikit-learn>=1.9,<2",
        "tensorflow" + TENSORFLOW,
        "tensorflow-datasets>=4.9.10,<5",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]" + TENSORFLOW],
        "tensorboard": ["tensorboard>=2.20,<3"],
        "test": [
            "jsonschema>=4.26,<5",
            "pytest>=9.2",
            "pytest-xdist>=3.8",
            "ruff>=0.17,<0.18",
        ],
    },
    entry_points={
        "console_scripts": [
            "mart-train=mart_tf.train:main",
            "mart-evaluate=mart_tf.evaluate:main",
            "mart-export=mart_tf.export:main",
            "mart-label=mart_tf.label:main",
        ]
    },
    data_files=shared_files("flags", "export"),
)
