"""Networks in files that another runtime computes: LiteRT, ONNX Runtime.

Such a file answers and no more: it has no gradients. The packages that compute
and write it are optional, and asked for before any work starts.
"""

import dataclasses
import importlib.metadata
import importlib.util
import pathlib

from mart_tf import lazy
from mart_tf import limits


@dataclasses.dataclass(frozen=True)
class Runtime:
    """What computes one kind of file.

    Args:
        name: As it calls itself.
        format: What a user calls such files, and the extra of mart-tf that
            brings the packages along.
        package: What is installed.
        module: What is imported of it.
        writers: Modules that writing such a file takes beside TensorFlow.
        network: Import path of a class made of a file's bytes, with
            `input_shape`, that of one image, None where a size is free; and
            `answer`, from images, float32 `[batch, ...]`, to scores, float32
            `[batch, classes]`.
    """

    name: str
    format: str
    package: str
    module: str
    writers: tuple
    network: str

    def check(self, what, writing=False):
        """Refuses a file that takes packages which are not there.

        Args:
            what: The file, or the flag that asks for one, for the message.
            writing: Whether it is written, and not only run.

        Raises:
            ValueError: If one is not installed.
        """
        for module in (self.module, *(self.writers if writing else ())):
            if importlib.util.find_spec(module) is None:
                raise ValueError(
                    f"{what} needs {self.name}, and the package {module} is "
                    "not installed; expected it: pip install "
                    f"'mart-tf[{self.format}]'."
                )

    def version(self):
        """Its name, and the version of its package, in words."""
        return f"{self.name} {importlib.metadata.version(self.package)}"


RUNTIMES = {
    ".tflite": Runtime(
        "LiteRT",
        "litert",
        "ai-edge-litert",
        "ai_edge_litert",
        (),
        "mart_tf.runtimes.litert:Network",
    ),
    ".onnx": Runtime(
        "ONNX Runtime",
        "onnx",
        "onnxruntime",
        "onnxruntime",
        ("onnx", "tf2onnx"),
        "mart_tf.runtimes.onnx:Network",
    ),
}


FORMATS = {each.format: each for each in RUNTIMES.values()}


def of(path):
    """The `Runtime` of a file, as its name ends; None of any other."""
    return RUNTIMES.get(pathlib.Path(path).suffix)


def read(path):
    """The network in a file of one of `RUNTIMES`.

    Args:
        path: A path.

    Returns:
        What `Runtime.network` says, and the bytes of the file.

    Raises:
        ValueError: If the runtime is not installed, the file cannot be read
            by it, or it is no network from one batch of images to scores.
    """
    runtime = of(path)
    runtime.check(path)
    with limits.opened(path) as file:
        content = file.read()
    try:
        return lazy.load(runtime.network)(content), content
    except ValueError as error:
        raise ValueError(
            f"{str(path)!r} cannot be run by {runtime.version()}; expected a "
            f"whole file, from one batch of images to scores: {error}"
        ) from error
