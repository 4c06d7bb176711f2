"""Which devices a run uses, and the precision that they compute in."""

import functools
import pathlib

import tensorflow as tf

_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}


def kind():
    """What computes: "GPU" where TensorFlow sees one, else "CPU"."""
    return "GPU" if tf.config.list_logical_devices("GPU") else "CPU"


def strategy(name, members=None):
    """The distribution strategy for a `--strategy`.

    "auto" mirrors over all visible GPUs (or logical CPUs where there is no
    GPU) when there is more than one, and so does "multi_worker" of one process.

    Args:
        name: One of `runs.STRATEGIES`.
        members: The `cluster.Members` whose processes train together, or None.
            Each must come here before it has used TensorFlow; the call waits
            for the last one.
    """
    if members is not None:
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = tf.config.list_logical_devices(kind())
    if name == "mirrored" or (name != "single" and len(devices) > 1):
        return _mirrored(tuple(device.name for device in devices))
    # The default strategy: one device.
    return tf.distribute.get_strategy()


@functools.cache
def _mirrored(devices):
    # One object for the process: two strategies number their collective
    # operations alike, and TensorFlow then mixes their results up on a CPU.
    return tf.distribute.MirroredStrategy(devices)


def jit_compile(xla, replicas, meet=False):
    """What `AdversarialClassifier.compile` takes for an `--xla`.

    "auto" has XLA compile the whole step on a GPU, on several the attack unless
    they meet in it, and nothing on a CPU, where its code is several times
    slower.

    Raises:
        ValueError: If the whole step is to be compiled for several replicas.
    """
    if xla == "auto":
        on_gpu = "step"
        if replicas > 1:
            on_gpu = "off" if meet else "attack"
        xla = on_gpu if kind() == "GPU" else "off"
    if xla == "step" and replicas > 1:
        raise ValueError(
            f"--xla=step compiles the step of one device, and there are "
            f"{replicas}; give --xla=attack, or --strategy=single."
        )
    return {"off": False, "attack": "attack", "step": True}[xla]


def policy(precision):
    """The Keras dtype policy for a `--precision`, and why.

    Returns:
        "float32" or "mixed_bfloat16", and a sentence for the user.
    """
    if precision == "tf32":
        return "float32", "float32, its products in TF32 where there is a GPU"
    if precision != "auto":
        return precision, f"{precision}, as asked"
    if _computes_bfloat16():
        return "mixed_bfloat16", "mixed_bfloat16, which this hardware computes"
    return "float32", "float32: this hardware does not compute bfloat16"


def _computes_bfloat16():
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capabilities = [
            tf.config.experimental.get_device_details(gpu).get(
                "compute_capability", (0, 0)
            )
            for gpu in gpus
        ]
        return min(capabilities) >= (8, 0)
    # TensorFlow does not tell what a CPU computes; Linux does.
    information = pathlib.Path("/proc/cpuinfo")
    if not information.exists():
        return False
    words = set(information.read_text(encoding="utf-8").split())
    return bool(words & _BFLOAT16_FLAGS)
