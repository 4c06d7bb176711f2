"""Initial weights as a pure function of a seed and a layer's name.

The distributions are those of the networks' original PyTorch code; Keras's
own defaults (Glorot uniform, truncated He normal) are others.
"""

import zlib

from keras import initializers


def derived_seed(seed, name):
    """An integer in [0, 2^32) for the weight `name` of a network."""
    return zlib.crc32(f"{seed}/{name}".encode())


def kaiming_normal(seed, name, mode="fan_in"):
    """N(0, sqrt(2 / fan)), untruncated (He et al., ICCV 2015, eq. 10, 14).

    Args:
        seed: The network's seed.
        name: The kernel's name, unique in its network.
        mode: "fan_in", the inputs of a unit, or "fan_out", of a convolution
            height x width x output channels, as wide residual networks have.
    """
    return initializers.VarianceScaling(
        scale=2.0,
        mode=mode,
        distribution="untruncated_normal",
        seed=derived_seed(seed, name),
    )


def fan_in_uniform(seed, name):
    """U(-b, b) with b = 1 / sqrt(fan_in): PyTorch's default for kernels.

    PyTorch calls it kaiming uniform with a = sqrt(5).
    """
    return initializers.VarianceScaling(
        scale=1 / 3,
        mode="fan_in",
        distribution="uniform",
        seed=derived_seed(seed, name),
    )


def bias_uniform(fan_in, seed, name):
    """U(-b, b) with b = 1 / sqrt(fan_in): PyTorch's default for biases.

    Args:
        fan_in: Inputs of a unit, which the shape of a bias does not tell.
        seed: The network's seed.
        name: The bias's name, unique in its network.
    """
    bound = fan_in**-0.5
    return initializers.RandomUniform(
        -bound, bound, seed=derived_seed(seed, name)
    )
