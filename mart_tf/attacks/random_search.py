"""Square: a random search by square windows, which asks for no gradient."""

import functools
import math

import tensorflow as tf

from mart_tf import bounds
from mart_tf import noise
from mart_tf.attacks import base
from mart_tf.attacks import examples
from mart_tf.attacks import objectives

# The share p of an image's pixels halves after these queries, however many
# there are, as in AutoAttack. (The authors' code rescales them to a budget of
# 10,000; the paper leaves 500 out.)
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


class Square(base.Attack):
    """Square (Andriushchenko et al., ECCV 2020, algorithms 1 and 2), linf.

        x'_0 = project(x + epsilon * stripes)
        x'_i = x'_{i-1} but project(x + epsilon * signs) inside a window

    with stripes one random sign for each column and channel, signs one for
    each channel, and the window a square of side max(round(sqrt(p h w)), 1)
    anywhere in the image. x'_i is kept if the margin z_y - max_{k != y} z_k
    falls, else dropped. p halves on the way.

    The defaults are those of AutoAttack (Croce and Hein, ICML 2020). In its
    code windows leave out the last row and column, and all examples of a
    batch share them.

    A step is one forward pass of the candidate in `state["adversarial"]`:
    first of the stripes, then of each window. As in that code the stripes are
    not one of the `queries`. After the last step the candidate is the best
    one found.

    Images are `[height, width, channels]`, or `[height, width]`; a vector is
    an image of one row. A window is cut to the image's height and width.

    Args:
        queries: Windows tried for each example, at least 1: forward passes
            after that of the stripes.
        p: Share of the pixels in the first windows, in (0, 1].
        restarts: How often to begin anew, at least 1.

    Raises:
        ValueError: If the norm is not linf, or a setting outside its range.
    """

    needs_gradient = False
    own_noise = True
    takes_target = True

    def __init__(self, queries: int = 5000, p: float = 0.8, restarts: int = 1):
        bounds.ATTACK_STEPS.check("queries", queries)
        if not 0.0 < p <= 1.0:
            raise ValueError(
                f"p is {p!r}; expected a share of the pixels above 0 and at "
                "most 1."
            )
        self.queries = queries
        self.steps = 1 + queries
        self.restarts = restarts
        self.p = p

    def prepare(self):
        if self.threat.norm != "linf":
            raise ValueError(
                f"The threat model's norm is {self.threat.norm!r}; expected "
                "'linf', the only norm that square is for: choose another "
                "attack."
            )
        self.margin = functools.partial(
            objectives.objective("margin", self.targeted), kappa=math.inf
        )

    def start(self, images, labels, seeds, number=0):
        grid = _grid(images)
        draws = noise.uniform(noise.fold(seeds, 0), [1, *grid.shape[2:]])
        stripes = _like(self._moved(grid, draws), images)
        return {
            "adversarial": stripes,
            "accepted": stripes,
            "objective": tf.fill(tf.shape(images)[:1], -math.inf),
            "seeds": seeds,
        }

    def step(self, images, labels, state, taken):
        candidate = state["adversarial"]
        logits = self.classify(candidate)
        value = self.margin(labels, logits)
        wins = value > state["objective"]
        accepted = examples.where(wins, candidate, state["accepted"])
        following = {
            "adversarial": self._proposal(
                images, accepted, state["seeds"], taken + 1
            ),
            "accepted": accepted,
            "objective": tf.where(wins, value, state["objective"]),
            "seeds": state["seeds"],
        }
        return following, logits

    def sides(self, number, pixels):
        """The window's side at each example's step, int32 `[batch]`.

        Args:
            number: Int32 `[batch]`, the step: 0 is that of the stripes, the
                windows begin at 1.
            pixels: Height times width of an image.

        Returns:
            Pixels; 0 past the last window, where there is nothing to try.
        """
        table = [
            max(round(math.sqrt(self.p / 2**halvings * pixels)), 1)
            for halvings in range(len(_HALVINGS) + 1)
        ]
        # The authors' code numbers the windows from 0.
        last = [1 + after for after in _HALVINGS]
        passed = tf.cast(number[:, None] > last, tf.int32)
        side = tf.gather(table, tf.reduce_sum(passed, axis=1))
        return tf.where(number < self.steps, side, 0)

    def _proposal(self, images, accepted, seeds, number):
        """`accepted` with other values inside one window of each example."""
        grid = _grid(images)
        _, height, width, channels = grid.shape
        draws = noise.uniform(
            noise.fold(seeds, number[:, None]), [2 + channels]
        )
        side = self.sides(number, height * width)
        rows = _interval(draws[:, 0], side, height)
        columns = _interval(draws[:, 1], side, width)
        window = rows[:, :, None, None] & columns[:, None, :, None]
        moved = self._moved(grid, draws[:, None, None, 2:])
        return _like(tf.where(window, moved, _grid(accepted)), images)

    def _moved(self, grid, draws):
        """x + epsilon or x - epsilon, allowed, as numbers in [0, 1) say."""
        epsilon = self.threat.epsilon
        offset = tf.where(draws < 0.5, -epsilon, epsilon)
        return self.threat.project(grid + offset, grid)


def _interval(draw, side, size):
    """Which of `size` places a random interval covers, bool `[batch, size]`.

    `draw` is uniform in [0, 1) and places it anywhere inside.
    """
    side = tf.minimum(side, size)
    room = tf.cast(size - side + 1, tf.float32)
    first = tf.cast(draw * room, tf.int32)[:, None]
    places = tf.range(size)
    return (places >= first) & (places < first + side[:, None])


def _grid(images):
    """Images as `[batch, height, width, channels]`."""
    shape = tuple(images.shape[1:])
    if len(shape) == 1:
        shape = (1, *shape, 1)
    elif len(shape) == 2:
        shape = (*shape, 1)
    elif len(shape) != 3:
        raise ValueError(
            f"Each image has shape {shape}; square expects [height, width, "
            "channels], [height, width] or [width]."
        )
    return tf.reshape(images, [-1, *shape])


def _like(grid, images):
    return tf.reshape(grid, [-1, *images.shape[1:]])
