"""Hours that a recipe takes on paper, on one card and on several.

A step takes `units * unit + FLOP / flops` seconds: what its passes cost
however small they are, and the arithmetic. Both numbers are fitted to steps
that `docs/gpu.md` measured on one card. What lies between cards is assumed.
"""

import functools
import math
from typing import NamedTuple

import costs
import numpy as np
import recipes

import mart_tf
from mart_tf import defenses
from mart_tf import options
from mart_tf import train

# Training images, and those of them that are held out for validation.
IMAGES = {
    "digits": (1_438, 144),
    "mnist": (60_000, 2_000),
    "cifar10": (50_000, 2_000),
}

# docs/gpu.md, "How fast": one H200, MART with PGD-10, mixed_bfloat16. Images a
# second by what XLA compiles: nothing, the attack, the step.
MEASURED = (
    ("resnet18", 128, {"off": 1_068, "attack": 2_252, "step": 5_539}),
    ("resnet18", 512, {"off": 1_981, "attack": 5_238, "step": 10_910}),
    (
        "wide_resnet:depth=34:width=10",
        128,
        {"off": 400, "attack": 777, "step": 1_195},
    ),
)
# The same page: a product of two large matrices, FLOP/s.
PEAK = 467e12


class Speed(NamedTuple):
    """A card: seconds for each unit of `costs.Passes`, and FLOP/s."""

    unit: float
    flops: float

    def seconds(self, units, flop):
        """Seconds of a batch of `flop` FLOP in so many units."""
        return units * self.unit + flop / self.flops


class Link(NamedTuple):
    """Between cards: bytes a second each way, seconds until a sum begins."""

    bandwidth: float
    latency: float

    def seconds(self, size, sums, cards):
        """Seconds of so many sums, `size` bytes together, none overlapping."""
        return costs.ring(size, cards) / self.bandwidth + sums * self.latency


# Assumed: NVLink as NCCL uses it inside a host, and 100 Gbit/s between hosts.
NVLINK = Link(bandwidth=300e9, latency=20e-6)
ETHERNET = Link(bandwidth=12.5e9, latency=100e-6)


@functools.cache
def fitted(compiled):
    """The `Speed` of the measured card, and its greatest relative error.

    Args:
        compiled: What XLA compiles: "off", "attack" or "step".
    """
    passes = costs.passes("mart", 10)
    rows = []
    for name, size, rates in MEASURED:
        found = costs.network(name, costs.SHAPES["cifar10"])
        flop = size * costs.training_flops(found, passes)
        rows.append((passes.units, flop, size / rates[compiled]))
    return fit(rows)


def speed(passes, cards):
    """The `Speed` of a card with `--xla=auto`: the step is one card's.

    Args:
        passes: The `costs.Passes` of a step.
        cards: How many cards.
    """
    if cards == 1:
        return fitted("step")[0]
    return fitted("attack" if passes.attack else "off")[0]


class Recipe(NamedTuple):
    """What of a recipe its cost follows from."""

    network: str
    dataset: str
    defense: str
    update: str
    attack_steps: int
    batch_size: int
    steps: int
    epochs: int
    validation_images: int

    @property
    def found(self):
        """Its `costs.Network`."""
        return costs.network(self.network, costs.SHAPES[self.dataset])

    @property
    def passes(self):
        """Its `costs.Passes`."""
        found = costs.passes(self.defense, self.attack_steps)
        if options.parse(self.update).name == "awp":
            return costs.perturbed(found)
        return found

    @property
    def remembered(self):
        """Rows that its defense keeps something of."""
        defense = defenses.get(self.defense)
        kept = defense.memory(mart_tf.ThreatModel())
        return len(kept) * IMAGES[self.dataset][0]

    def flop(self):
        """FLOP of the whole recipe, validation included."""
        trained = self.steps * self.batch_size
        checked = costs.validation(self.passes, self.attack_steps).units
        return self.epochs * (
            trained * costs.training_flops(self.found, self.passes)
            + self.validation_images * checked * self.found.forward
        )

    def seconds(self, cards=1, times=1, link=NVLINK):
        """Seconds of the whole recipe, without compilation and saves.

        Args:
            cards: How many share each batch.
            times: The batch as a multiple of the recipe's; the same number of
                images is trained on.
            link: The `Link` between the cards, for more than one.
        """
        size = times * self.batch_size
        card = speed(self.passes, cards)
        step = card.seconds(
            self.passes.units,
            size / cards * costs.training_flops(self.found, self.passes),
        )
        if cards > 1:
            found = costs.reduced(self.found, self.passes, self.remembered)
            step += link.seconds(*found, cards)
        checked = costs.validation(self.passes, self.attack_steps).units
        held = self.validation_images
        check = math.ceil(held / size) * card.seconds(checked, 0)
        check += held / cards * checked * self.found.forward / card.flops
        steps = self.steps * self.batch_size / size
        return self.epochs * (steps * step + check)


def recipe(path):
    """The `Recipe` of a file of `flags/`."""
    recipes.parsed(path)
    config = train.configuration().filled()
    images, held = IMAGES[config.dataset]
    if config.validation_images is not None:
        held = config.validation_images
    labeled = config.batch_size
    if config.pool:
        labeled -= round(config.batch_size * config.pool_fraction)
    return Recipe(
        network=config.model,
        dataset=config.dataset,
        defense=config.defense,
        update=config.update,
        attack_steps=config.attack_steps,
        batch_size=config.batch_size,
        steps=config.steps_per_epoch or (images - held) // labeled,
        epochs=config.epochs,
        validation_images=held,
    )


def fit(rows):
    """The `Speed` that comes nearest to measured steps, in relative terms.

    Args:
        rows: Tuples of units, FLOP and seconds of a step.

    Returns:
        A `Speed`, and the greatest relative deviation of a row.
    """
    units, flop, seconds = np.array(rows, float).T
    left = np.stack([units / seconds, flop / seconds], axis=1)
    # Of the two unknowns one is a millisecond, the other 1e-15 seconds.
    scale = left.max(axis=0)
    found, *_ = np.linalg.lstsq(left / scale, np.ones(len(seconds)), rcond=None)
    unit, inverse = found / scale
    speed = Speed(unit, 1 / inverse)
    apart = [
        speed.seconds(*row) / taken - 1
        for row, taken in zip(
            zip(units, flop, strict=True), seconds, strict=True
        )
    ]
    return speed, max(map(abs, apart))
