"""Optimizers by name, with the settings of the papers.

Weight decay is not theirs: `AdversarialClassifier` adds the coupled
`weight_decay * w` to the gradient, before the momentum, as PyTorch does. That
of `adamw` alone is its own, and then no other acts: see `with_decay`.
Keras is imported where an optimizer is made, so that a program can check a
spec before.
"""

from mart_tf import options
from mart_tf import training

_NAMES = options.Names(
    training.OPTIMIZERS, "optimizer", training.OPTIMIZER_RESERVED
)


def sgd(
    learning_rate,
    momentum: float = 0.9,
    nesterov: bool = False,
):
    """Stochastic gradient descent with momentum (Sutskever et al., ICML 2013).

        v = momentum v - rate g
        w = w + v,  with nesterov  w + momentum v - rate g

    At a constant rate these are PyTorch's steps. PyTorch leaves the rate out
    of v, so that when it falls the whole step falls at once; here v keeps
    what it holds, which fades over some 1 / (1 - momentum) steps. Of a steady
    gradient that is momentum / (1 - momentum) * (old / new rate - 1) steps at
    the new rate more than PyTorch's way (without nesterov): 81 after a
    tenfold fall with momentum 0.9.

    Args:
        learning_rate: A number above 0, or a Keras schedule.
        momentum: In [0, 1).
        nesterov: Whether to take Nesterov's step.

    Returns:
        A `keras.optimizers.SGD`.

    Raises:
        ValueError: If a value lies outside its range, or momentum is 0 and
            nesterov is asked for.
    """
    _check("sgd", {"momentum": momentum, "nesterov": nesterov})
    import keras

    return keras.optimizers.SGD(
        learning_rate, momentum=momentum, nesterov=nesterov
    )


def adam(
    learning_rate,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
):
    """Adam (Kingma and Ba, ICLR 2015).

        m = beta_1 m + (1 - beta_1) g,  v = beta_2 v + (1 - beta_2) g^2
        w = w - rate sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon)

    at step t, counted from 1: the form at the end of the paper's section 2,
    as Keras has it. PyTorch follows Algorithm 1, where epsilon is added to
    sqrt(v / (1 - beta_2^t)): while t is small, epsilon weighs more here (32
    times at the first step), which shows only in gradients that are about as
    small.

    Args:
        learning_rate: A number above 0, or a Keras schedule.
        beta_1: In [0, 1).
        beta_2: In [0, 1).
        epsilon: Above 0. 1e-8 as in the paper and in PyTorch; Keras's own
            default is 1e-7.

    Returns:
        A `keras.optimizers.Adam`.

    Raises:
        ValueError: If a value lies outside its range.
    """
    settings = {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon}
    _check("adam", settings)
    import keras

    return keras.optimizers.Adam(learning_rate, **settings)


def adamw(
    learning_rate,
    weight_decay: float = 0.004,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
):
    """AdamW (Loshchilov and Hutter, ICLR 2019), Algorithm 2.

        w = w - rate weight_decay w - the step of Adam

    Decoupled: the decay is no part of the gradient, so that Adam does not
    divide it by sqrt(v). As in Keras and PyTorch it is multiplied by the rate,
    schedule included: the lambda of the paper is rate * weight_decay. It acts
    on every trainable variable, biases and batch norm included, as the coupled
    one does.

    Args:
        learning_rate: A number above 0, or a Keras schedule.
        weight_decay: At least 0; Keras's own default.
        beta_1, beta_2, epsilon: As of `adam`.

    Returns:
        A `keras.optimizers.AdamW`.

    Raises:
        ValueError: If a value lies outside its range.
    """
    settings = {
        "weight_decay": weight_decay,
        "beta_1": beta_1,
        "beta_2": beta_2,
        "epsilon": epsilon,
    }
    _check("adamw", settings)
    import keras

    return keras.optimizers.AdamW(learning_rate, **settings)


def with_decay(spec, weight_decay):
    """A spec with `--weight_decay` in it, where the decay is the optimizer's.

    Args:
        spec: Such as "sgd" or "adamw:beta_1=0.8".
        weight_decay: What `--weight_decay` says, or None.

    Raises:
        ValueError: If the spec says its decay too.
    """
    resolved = check(spec)
    if resolved.name != "adamw" or weight_decay is None:
        return spec
    if "weight_decay" in resolved.options:
        raise ValueError(
            f"--weight_decay={weight_decay:g} and --optimizer={spec} both set "
            "the weight decay; give one."
        )
    return f"{spec}:weight_decay={weight_decay!r}"


def own_decay(spec):
    """The decoupled weight decay of a complete spec, or None."""
    resolved = check(spec)
    if resolved.name != "adamw":
        return None
    return resolved.options["weight_decay"]


def check_one_decay(spec, weight_decay):
    """Refuses a coupled decay beside one of a user's own optimizer.

    Args:
        spec: The optimizer's, complete.
        weight_decay: The coupled decay, or None.

    Raises:
        ValueError: If both are above 0.
    """
    own = create(spec, 1.0).weight_decay
    if own and weight_decay:
        raise ValueError(
            f"--optimizer={spec} has a weight decay of its own, {own:g}, "
            f"beside --weight_decay={weight_decay:g}, and both would act; "
            "give --weight_decay=0, or an optimizer without."
        )


def check(spec):
    """Checks a spec such as "sgd:nesterov=true", without TensorFlow.

    Returns:
        A resolved `options.Spec`.

    Raises:
        ValueError: On an unknown name or option, or a value outside its
            range.
    """
    resolved = _NAMES.resolve(spec)
    if resolved.name in training.OPTIMIZERS:
        _check(resolved.name, resolved.options)
    if resolved.options.get("use_ema") is True:
        decay = resolved.options.get("ema_momentum", 0.99)
        raise ValueError(
            f"--optimizer={spec}: the average of the weights is no option of "
            f"the optimizer; give --ema={decay} instead."
        )
    return resolved


def complete(spec):
    """A spec with every option written."""
    return _NAMES.complete(spec)


def create(spec, learning_rate):
    """The optimizer of a spec such as "sgd:nesterov=true".

    Args:
        spec: The spec; of a user's own `package.module:Name`, a class or a
            function whose first parameter is the learning rate.
        learning_rate: A number above 0, or a Keras schedule.
    """
    resolved = check(spec)
    made = options.load(resolved.import_path)(learning_rate, **resolved.options)
    import keras

    if not isinstance(made, keras.optimizers.Optimizer):
        raise ValueError(
            f"Optimizer {spec!r} is a {type(made).__name__}; expected a "
            "keras.optimizers.Optimizer, or a function that returns one."
        )
    return made


def _check(name, settings):
    for key, value in settings.items():
        if key in ("momentum", "beta_1", "beta_2") and not 0.0 <= value < 1.0:
            raise ValueError(
                f"The optimizer {name} has {key}={value:g}; expected at least "
                "0 and less than 1."
            )
        if key == "weight_decay" and not 0.0 <= value < float("inf"):
            raise ValueError(
                f"The optimizer {name} has weight_decay={value:g}; expected a "
                "number of at least 0, such as 0.004."
            )
        if key == "epsilon" and not 0.0 < value < float("inf"):
            raise ValueError(
                f"The optimizer {name} has epsilon={value:g}; expected a "
                "number above 0, such as 1e-8."
            )
    if settings.get("nesterov") and settings.get("momentum") == 0.0:
        raise ValueError(
            f"The optimizer {name} has nesterov=true and momentum=0; expected "
            "a momentum above 0 to look ahead by."
        )
