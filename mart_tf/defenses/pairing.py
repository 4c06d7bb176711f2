"""Defenses that pair x with x': CE plus a distance of their predictions."""

import keras

from mart_tf import bounds
from mart_tf import losses
from mart_tf.defenses import base


class Pairing(base.Defense):
    """Base of the defenses whose loss is a function of y, z(x) and z(x').

    Two forward passes in training mode, natural first, apart, so that batch
    norm sees natural and adversarial images as batches of their own.

    Args:
        regularization: The paper's lambda, at least 0.
    """

    function = None
    smooths_labels = True

    def __init__(self, regularization):
        self.regularization = bounds.AT_LEAST_ZERO.check(
            "regularization", regularization
        )

    def loss(self, classify, batch, adversarial):
        natural_logits = classify(batch.image)
        adversarial_logits = classify(adversarial.image)
        values = type(self).function(
            batch.label,
            natural_logits,
            adversarial_logits,
            self.regularization,
            label_smoothing=batch.label_smoothing,
        )
        return base.Losses(values, natural_logits, adversarial_logits)


@keras.saving.register_keras_serializable(package="mart_tf")
class ALP(Pairing):
    """Adversarial logit pairing, as Table 1 of the MART paper gives it.

        CE(p(x'), y) + regularization * ||p(x') - p(x)||_2^2

    with x' from PGD on the cross-entropy. (Kannan et al., 2018, pair logits
    and add the cross-entropy of x.)

    Args:
        regularization: The paper's lambda, at least 0. The paper gives no
            value; 0.5 is that of Kannan et al. for logits.

    Raises:
        ValueError: If the regularization is below 0.
    """

    function = staticmethod(losses.adversarial_logit_pairing)

    def __init__(self, regularization: float = 0.5):
        super().__init__(regularization)


@keras.saving.register_keras_serializable(package="mart_tf")
class CLP(Pairing):
    """Clean logit pairing, as Table 1 of the MART paper gives it.

        CE(p(x), y) + regularization * ||p(x') - p(x)||_2^2

    with x' from PGD on the cross-entropy. (Kannan et al., 2018, pair random
    natural images, without an attack.)

    Args:
        regularization: The paper's lambda, at least 0. The paper gives no
            value; 0.5 is that of Kannan et al. for logits.

    Raises:
        ValueError: If the regularization is below 0.
    """

    function = staticmethod(losses.clean_logit_pairing)

    def __init__(self, regularization: float = 0.5):
        super().__init__(regularization)


@keras.saving.register_keras_serializable(package="mart_tf")
class UAT(Pairing):
    """The loss of UAT++ (Uesato et al., NeurIPS 2019), as the MART paper
    gives it in section 3.3.

        CE(p(x'), y) + regularization * KL(p(x) || p(x'))

    with one x', from PGD on the cross-entropy, for both terms. With a pool of
    pseudo-labelled images this is UAT++.

    Args:
        regularization: Their lambda, at least 0. The MART paper gives no
            value; the default, that of its TRADES, is ours.

    Raises:
        ValueError: If the regularization is below 0.
    """

    function = staticmethod(losses.uat)

    def __init__(self, regularization: float = 4.0):
        super().__init__(regularization)


@keras.saving.register_keras_serializable(package="mart_tf")
class TRADES(Pairing):
    """TRADES (Zhang et al., ICML 2019), equation 5 there.

        CE(p(x), y) + regularization * KL(p(x) || p(x'))

    with x' from PGD on that divergence, p(x) held fixed. With a pool of
    pseudo-labelled images this is RST (Carmon et al., NeurIPS 2019).

    Args:
        regularization: Their 1 / lambda, at least 0: 6 in their experiments,
            4 in those of the MART paper (default).

    Raises:
        ValueError: If the regularization is below 0.
    """

    function = staticmethod(losses.trades)

    def __init__(self, regularization: float = 4.0):
        super().__init__(regularization)

    def check(self, threat, random_start):
        base.check_start("trades", random_start)

    def attack(self, classify, batch, inner):
        objective = base.divergence_from(classify, batch)
        return base.Adversarial(base.pgd(classify, batch, inner, objective))
