"""What an attack is: options, then a classifier, then a step at a time.

An attack is made of its options alone and put `on` a classifier inside a
threat model. Called on a batch it goes to its end. What evaluates a whole data
set drops an example as soon as it is broken and fills its place with another:
it drives the same attack step by step.
"""

import copy
import functools
import threading

import tensorflow as tf

from mart_tf import bounds
from mart_tf import noise
from mart_tf import threat as threat_model
from mart_tf.attacks import examples
from mart_tf.attacks import given
from mart_tf.attacks import gradient
from mart_tf.attacks import loops
from mart_tf.attacks import spelling

_TensorLike = tf.types.experimental.TensorLike


def compiled(function):
    """A `tf.function` of which there may be many with the same code.

    TensorFlow takes the second attack of a kind for the first one traced
    again, and warns of a few; a partial has no code to be known by. Of many
    threads that wait for the first trace it takes each for the tracing one,
    and warns too: so that trace is made apart. Shapes are never generalised.
    """
    graph = tf.function(functools.partial(function), reduce_retracing=False)
    lock, traced = threading.Lock(), threading.Event()

    def call(*arguments):
        if not traced.is_set():
            with lock:
                if not traced.is_set():
                    graph.get_concrete_function(*arguments)
                    traced.set()
        return graph(*arguments)

    return call


class Attack:
    """An attack on batches of images: what all have in common.

    A subclass takes its options in `__init__`, with type hints and defaults,
    and keeps each as an attribute of the same name: so they are the options
    of a spec, and stand in reports. It has `start` and, if it takes steps,
    `step`. What an attack remembers of an example between steps are tensors
    `[batch, ...]` in a dict, among them "adversarial", the present iterate,
    always inside the threat model. So examples at different steps may share a
    batch.

    An attack of 0 steps does all its work in `start`, which runs eagerly: one
    that belongs to another library.

    Attributes:
        classify, threat, classes: What `on` was given: images to logits, the
            `ThreatModel`, the number of classes; None before.
        unbound: The attack that `on` was called on.
        targeted: Whether `labels` are the classes aimed at, not the true ones.
        steps: How many steps an example takes in a round.
        restarts: How often the attack starts anew, from other noise.
        rounds: How many rounds each start has: one, or one for each of the
            classes that the attack itself aims at.
        passes: Of a classifier that draws, over how many passes its answers
            are taken in the mean.
        random: Whether each start is another.
        own_noise: Whether the first start too draws from a seed of its own,
            made of the example's and the number of the round.
        takes_target: Whether it can be `targeted`.
        needs_gradient: Whether the classifier must be differentiable.
        climbs: Whether the loss at the iterates says how the attack went: it
            is then kept, step by step.
        objective: What an attack along gradients climbs, "cross_entropy",
            "margin" or another; None for all others.
        plain: Whether it is projected ascent by steps of one length, as PGD
            is: on a sound network its loss rises, restarts change little, and
            the reference breaks not much more.
        reach: How far all steps lead, in the norm; None where their lengths
            are not known before.
        reference: Whether it is what others are measured against, AutoAttack.
        norm: The norm that it minimises the distance in, free of the threat
            model's radius; None for attacks that stay inside it.
        radius: Where `norm` is given, the distance that it is reported at.
        notes: Sentences for the report: what was done otherwise than asked.
        parts: Of an ensemble, which is no attack of its own: pairs of a name
            and an attack on the same classifier, each for what is left.
    """

    classify = threat = classes = unbound = None
    targeted = False
    steps = 0
    restarts = 1
    rounds = 1
    passes = 1
    random = True
    own_noise = False
    takes_target = False
    needs_gradient = True
    climbs = False
    objective = None
    plain = False
    reach = None
    reference = False
    norm = None
    radius = None
    notes = ()
    parts = ()

    def start(self, images, labels, seeds, number=0):
        """The state before the first step of a round.

        Args:
            images: Natural examples, float32 `[batch, ...]`.
            labels: Integer classes `[batch]`.
            seeds: Int64 tensor `[batch, 2]`, a seed of this round for each
                example.
            number: Which of the `rounds` of a start, a Python integer from 0.

        Returns:
            A dict of tensors `[batch, ...]`, "adversarial" among them.
        """
        raise NotImplementedError

    def step(self, images, labels, state, taken):
        """One step, compiled; free of an example's place in the batch.

        Args:
            images: Natural examples, float32 `[batch, ...]`.
            labels: Integer classes `[batch]`.
            state: What `start` or the step before returned.
            taken: Int32 `[batch]`: the steps of this round that each example
                has behind it.

        Returns:
            The next state, and the logits `[batch, classes]` of the iterate
            in `state`, not of the next one: a gradient has computed them
            anyway.
        """
        raise NotImplementedError

    def best(self, state):
        """What to hand over at the end of a round: the last iterate."""
        return state["adversarial"]

    def prepare(self):
        """Fills in what depends on classifier, threat model and classes.

        Raises:
            ValueError: If the attack cannot work with them.
        """

    @property
    def parameters(self):
        """Every setting by name, as a report lists them.

        Raises:
            ValueError: If an option is no attribute.
        """
        names = spelling.options(self)
        for name in names:
            if not hasattr(self, name):
                raise ValueError(
                    f"{type(self).__name__} keeps its option {name} nowhere; "
                    f"expected self.{name} = {name} in its __init__."
                )
        return {name: spelling.said(getattr(self, name)) for name in names}

    @property
    def iterations(self):
        """How many steps it makes in a round, driven from outside or not."""
        return max(1, self.steps)

    @property
    def all_rounds(self):
        """How many rounds there are, those of all starts."""
        return self.restarts * self.rounds

    @property
    def work(self):
        """About how many passes through the network an example takes."""
        return max(1, self.iterations * self.all_rounds * self.passes)

    def __str__(self):
        """The attack as a report names it: its class and what was set."""
        return spelling.name(self.unbound or self)

    def on(self, classify, threat, classes, targeted=False):
        """This attack on a classifier, inside a threat model.

        Args:
            classify: Maps images to logits `[batch, classes]`.
            threat: The `ThreatModel`.
            classes: Number of classes.
            targeted: Whether the labels of each batch are the classes that
                the examples shall be taken for.

        Raises:
            ValueError: If the attack cannot work with them, or does not keep
                to the form.
        """
        made = self.unbound or self
        bound = copy.copy(made)
        bound.unbound = made
        bound.classify, bound.threat, bound.classes = classify, threat, classes
        bound.targeted = targeted
        kind = type(self).__name__
        if targeted and not self.takes_target:
            raise ValueError(
                f"{kind} takes no target class; expected an attack that climbs "
                "an objective, such as PGD or APGD."
            )
        bounds.ATTACK_STEPS.check("restarts", bound.restarts)
        bounds.ATTACK_STEPS.check("passes", bound.passes)
        bound.prepare()
        if bound.restarts > 1 and not bound.random:
            raise ValueError(
                f"restarts is {bound.restarts}, and all starts of {kind} would "
                "be the same; expected one start, or a random one."
            )
        gradient.check_all_steps(kind, bound.iterations, bound.all_rounds)
        needed = ["start", "step"] if bound.steps else ["start"]
        for name in [] if bound.parts else needed:
            if getattr(type(self), name) is getattr(Attack, name):
                raise ValueError(
                    f"{kind} of {bound.steps} steps has no method {name}; "
                    "expected start, and step unless start does all the work."
                )
        if bound.norm is not None and not bound.radius:
            raise ValueError(
                f"{kind} minimises a distance in {bound.norm} and has no "
                "radius; expected the one that it is reported at."
            )
        return bound

    def begin(self, images, labels, seeds, number=0):
        """`start`, for a round of all; the state is checked.

        Args:
            images, labels: As in `start`.
            seeds: Int64 tensor `[batch, 2]`, one seed per example, the same
                in all rounds.
            number: The round, of `all_rounds`, from 0.
        """
        if number or self.own_noise:
            seeds = noise.fold(seeds, number)
        state = self.start(images, labels, seeds, number % self.rounds)
        if not isinstance(state, dict) or "adversarial" not in state:
            raise ValueError(
                f"{type(self).__name__}.start returned {_shape_of(state)}; "
                'expected a dict of tensors with "adversarial" among them.'
            )
        return state

    def advance(self, images, labels, state, taken):
        """`step`, whose result is checked: where it is traced, for nothing."""
        made = self.step(images, labels, state, taken)
        sound = isinstance(made, tuple | list) and len(made) == 2
        sound = sound and isinstance(made[0], dict) and set(state) <= {*made[0]}
        if not sound or len(getattr(made[1], "shape", ())) != 2:
            raise ValueError(
                f"{type(self).__name__}.step returned {_shape_of(made)}; "
                f"expected the next state, a dict of {', '.join(state)}, and "
                "the logits [batch, classes] of the present iterate."
            )
        return made

    def finish(self, images, labels, state):
        """All steps of a round, in the graph.

        Returns:
            The state after the last step; the first successful iterate of
            each example, or the natural image; and whether there was one,
            `[batch]`.
        """

        def body(number, state, found, fell):
            taken = tf.fill(tf.shape(labels), number)
            following, logits = self.advance(images, labels, state, taken)
            falls = self._succeeds(labels, logits) & ~fell
            found = examples.where(falls, state["adversarial"], found)
            return number + 1, following, found, fell | falls

        fell = tf.fill(tf.shape(images)[:1], False)
        if not self.steps:
            return state, images, fell
        return loops.repeated(
            lambda *_: True,
            body,
            (tf.constant(0), state, images, fell),
            self.steps,
        )[1:]

    def __call__(
        self,
        classify: gradient.Classify,
        images: _TensorLike,
        labels: _TensorLike,
        threat: threat_model.ThreatModel,
        *,
        seed: _TensorLike | None = None,
        target: _TensorLike | None = None,
    ) -> tf.Tensor:
        """Runs the attack to its end on one batch.

        Args:
            classify: Maps images to logits `[batch, classes]`.
            images: Natural examples, float32 `[batch, ...]`.
            labels: Integer classes `[batch]`.
            threat: The `ThreatModel`.
            seed: As in `pgd`.
            target: The class that each example shall be taken for, an integer
                or integers `[batch]`; default: any but the label. The
                objective is then that of the target, which falls, and an
                example is broken when its class is the target.

        Returns:
            Of each example the best iterate of the first round that has one
            that is broken, or else another of that round that is; where there
            is none, the last round's best. Float32, of the images' shape.

        Raises:
            ValueError: On images or labels as in `pgd`, or if the attack
                cannot work with what it was given.
        """
        images = given.floats(images, threat)
        labels = given.integers(labels, images, classify)
        classes = classify(images[:1]).shape[-1]
        if target is not None:
            labels = _targets(target, labels, classes)
        bound = self.on(classify, threat, classes, target is not None)
        seeds = given.example_seeds(seed, images)
        found, fell = images, tf.fill(tf.shape(images)[:1], False)
        for attack in [part for _, part in bound.parts] or [bound]:
            for number in range(attack.all_rounds):
                best, other, falls = attack._round(
                    images, labels, seeds, number
                )
                other = examples.where(falls, other, best)
                found = examples.where(fell, found, other)
                fell |= falls
        return tf.stop_gradient(found)

    def _round(self, images, labels, seeds, number):
        """The best of a round; an iterate that broke it, and if there is."""
        state = self.begin(images, labels, seeds, number)
        state, found, fell = self.finish(images, labels, state)
        # No step has looked at the last iterate.
        for iterate in (state["adversarial"], self.best(state)):
            falls = self._succeeds(labels, self.answer(iterate))
            found = examples.where(falls, iterate, found)
            fell |= falls
        return self.best(state), found, fell

    def answer(self, images):
        """The logits that an iterate is judged by, `[batch, classes]`."""
        return gradient.expected_logits(
            self.classify, images, self.passes, self.classes
        )

    def _succeeds(self, labels, logits):
        """Which examples are broken, bool `[batch]`."""
        wrong = examples.misclassified(labels, logits)
        return ~wrong if self.targeted else wrong


def _shape_of(value):
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_shape_of, value))})"
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(str, value)) or 'nothing'}"
    return f"a {type(value).__name__}"


def _targets(target, labels, classes):
    """The class that each example shall be taken for, like the labels."""
    target = tf.convert_to_tensor(target)
    whole = target.dtype.is_integer
    if not whole or target.shape.rank not in (None, 0, labels.shape.rank):
        raise ValueError(
            f"target is {target.dtype.name} of shape {target.shape}; expected "
            "a class, or one for each example, [batch]."
        )
    known = tf.get_static_value(target)
    for each in [] if known is None else known.ravel():
        if not 0 <= each < classes:
            raise ValueError(
                f"target is {each}; expected a class from 0 to {classes - 1}."
            )
    return tf.broadcast_to(tf.cast(target, labels.dtype), tf.shape(labels))
