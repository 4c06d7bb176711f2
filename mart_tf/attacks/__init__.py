"""Attacks: pure functions that find adversarial examples.

    attack(classify, images, labels, threat, ...) -> adversarial images

`classify` maps images `[batch, ...]` to logits `[batch, classes]`; images are
float32 inside the threat model's pixel range; labels are integers `[batch]`.
"""

from mart_tf.attacks.adaptive_boundary import fab
from mart_tf.attacks.auto_pgd import apgd
from mart_tf.attacks.auto_pgd import targeted_apgd
from mart_tf.attacks.boundary import nearest_crossing
from mart_tf.attacks.gradient import ascent_step
from mart_tf.attacks.gradient import check_settings
from mart_tf.attacks.gradient import fgsm
from mart_tf.attacks.gradient import input_gradient
from mart_tf.attacks.gradient import pgd
from mart_tf.attacks.objectives import dlr
from mart_tf.attacks.objectives import margin
from mart_tf.attacks.objectives import objective
from mart_tf.attacks.objectives import targeted_dlr
from mart_tf.attacks.projected import momentum_pgd
from mart_tf.attacks.random_search import square
from mart_tf.attacks.simultaneous_perturbation import spsa
from mart_tf.attacks.stationary import pgd_until_stationary
from mart_tf.attacks.stepwise import Stepwise

__all__ = [
    "Stepwise",
    "apgd",
    "ascent_step",
    "check_settings",
    "dlr",
    "fab",
    "fgsm",
    "input_gradient",
    "margin",
    "momentum_pgd",
    "nearest_crossing",
    "objective",
    "pgd",
    "pgd_until_stationary",
    "spsa",
    "square",
    "targeted_apgd",
    "targeted_dlr",
]
