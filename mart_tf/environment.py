"""What a result is made with: versions, exact arithmetic, a GPU's memory."""

import contextlib
import importlib.metadata
import platform

_PACKAGES = (
    "mart-tf",
    "tensorflow",
    "keras",
    "numpy",
    "tensorflow-datasets",
    "cleverhans",
)


def versions():
    """Versions of Python and of the packages that decide a result."""
    by_package = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            by_package[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            # mart_tf run from a clone that was not installed.
            by_package[package] = None
    return by_package


def spelled():
    """The versions that a person asks for, in a line."""
    by_package = versions()
    return ", ".join(
        f"{name} {by_package[package] or 'not installed as a package'}"
        for name, package in [
            ("mart_tf", "mart-tf"),
            ("TensorFlow", "tensorflow"),
            ("Keras", "keras"),
            ("Python", "python"),
        ]
    )


def grow_gpu_memory():
    """TensorFlow takes a GPU's memory as it needs it, not all at once.

    A setting of the whole process, taken before TensorFlow makes its devices;
    where they are made, or a GPU is divided, it stays as it is.
    """
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError, ValueError):
            tf.config.experimental.set_memory_growth(gpu, True)


@contextlib.contextmanager
def kept_float32():
    """How float32 is multiplied is afterwards as it was before.

    The setting is of the whole process. It comes back also after an exception.
    """
    import tensorflow as tf

    config = tf.config.experimental
    before = config.tensor_float_32_execution_enabled()
    try:
        yield
    finally:
        config.enable_tensor_float_32_execution(before)


@contextlib.contextmanager
def exact_float32():
    """An NVIDIA GPU multiplies float32 matrices exactly inside.

    TensorFlow lets it round their entries to 10 bits of mantissa (TF32)
    unless told otherwise. Afterwards it is as before. A decorator too.
    """
    import tensorflow as tf

    with kept_float32():
        tf.config.experimental.enable_tensor_float_32_execution(False)
        yield
