"""A run's configuration: plain values, checked without TensorFlow."""

import dataclasses
import math
import re

from mart_tf import bounds
from mart_tf import choices
from mart_tf import data
from mart_tf import defenses
from mart_tf import options
from mart_tf import places
from mart_tf import runs
from mart_tf import training
from mart_tf.data import augmentation_names
from mart_tf.data import class_weights
from mart_tf.models import declared
from mart_tf.models import names
from mart_tf.runs import own_callbacks
from mart_tf.training import optimizers
from mart_tf.training import schedule_names

# What may differ when a run continues; epochs may grow.
FREE_TO_DIFFER = (
    "workdir",
    "data_dir",
    "download",
    "strategy",
    "xla",
    "epochs",
    "checkpoint_every",
    "max_skipped_steps",
    "early_stopping_patience",
    "stop_on_collapse",
    "callbacks",
)

_INTERVAL = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(min|steps)", re.ASCII)

# What numbers may be, whatever the other settings are.
LIMITS = {
    "attack_step_size": bounds.ABOVE_ZERO,
    "attack_steps": bounds.ATTACK_STEPS,
    "batch_size": bounds.COUNT,
    "early_stopping_patience": bounds.Whole(0, bounds.COUNT.greatest),
    "ema": bounds.SHARE,
    "ema_warmup": bounds.SHARE,
    "ema_warmup_epochs": bounds.Real(0.0, bounds.COUNT.greatest),
    "epochs": bounds.COUNT,
    "epsilon_warmup_epochs": bounds.Real(0.0, bounds.COUNT.greatest),
    "label_smoothing": bounds.SHARE,
    "learning_rate": bounds.ABOVE_ZERO,
    "max_skipped_steps": bounds.Whole(0, bounds.COUNT.greatest),
    "pool_fraction": bounds.SHARE,
    "regularization": bounds.AT_LEAST_ZERO,
    "seed": choices.SEED,
    "steps_per_epoch": bounds.COUNT,
    "unlabeled_weight": bounds.AT_LEAST_ZERO,
    "validation_images": bounds.Whole(0, 2**31 - 1),
    "weight_decay": bounds.AT_LEAST_ZERO,
}
# Shares that may not be the whole, each with an example.
_BELOW_ONE = {"ema": "0.995", "ema_warmup": "0.025", "label_smoothing": "0.1"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that `mart-train` is told; None asks for the default."""

    workdir: str | None = None
    dataset: str = "digits"
    data_dir: str | None = None
    download: bool = False
    augment: str | None = None
    validation_images: int | None = None
    pool: str | None = None
    pool_fraction: float = 0.5
    unlabeled_weight: float = 1.0
    class_weights: str | None = None
    model: str | None = None
    init_from: str | None = None
    outputs: str = "logits"
    defense: str = "mart"
    regularization: float | None = None
    norm: str = "linf"
    epsilon: float | None = None
    pixel_min: float = 0.0
    pixel_max: float = 1.0
    attack_steps: int = 10
    attack_step_size: float | None = None
    random_start: str = "uniform"
    attack_batch_norm: str = "inference"
    epsilon_warmup_epochs: float | None = None
    epochs: int | None = None
    steps_per_epoch: int | None = None
    batch_size: int | None = None
    optimizer: str = "sgd"
    learning_rate: float | None = None
    schedule: str | None = None
    update: str = "plain"
    weight_decay: float | None = None
    label_smoothing: float = 0.0
    ema: float = 0.0
    ema_warmup: float = 0.0
    ema_warmup_epochs: float = 0.0
    precision: str = "auto"
    strategy: str = "auto"
    xla: str = "auto"
    seed: int = 0
    checkpoint_every: str = "10min"
    max_skipped_steps: int = 10
    early_stopping_patience: int = 0
    stop_on_collapse: bool = False
    callbacks: str | None = None

    def resolved(self):
        """The configuration with every default filled in, and checked.

        Returns:
            A `Config` without None but for `data_dir`, `pool`, `init_from`,
            `validation_images` (counted once the data is read),
            `steps_per_epoch` (those of a pass over the training split),
            `class_weights`, `callbacks`, `regularization` (moved into
            `defense`) and, where the optimizer has its own, `weight_decay`
            (moved into it). Network, defense, update, optimizer, schedule and
            augmentations say all their options.

        Raises:
            ValueError: On anything that no run could start with.
        """
        self._check_pixels()
        filled = self.filled()
        filled._check()
        return filled

    @property
    def pixel_range(self):
        """The least and the greatest pixel value, a tuple."""
        return self.pixel_min, self.pixel_max

    def ema_warmup_steps(self, steps):
        """The steps in which the average is the weights themselves.

        Args:
            steps: Training steps in an epoch.
        """
        if self.ema_warmup:
            return round(self.ema_warmup * self.epochs * steps)
        return math.ceil(self.ema_warmup_epochs * steps)

    def interval(self):
        """Seconds and steps between two checkpoints, one of them None.

        Raises:
            ValueError: If `checkpoint_every` is no such interval.
        """
        match = _INTERVAL.fullmatch(self.checkpoint_every)
        number = float(match.group(1)) if match else 0.0
        if not number or (match.group(2) == "steps" and number % 1):
            raise ValueError(
                f"--checkpoint_every is {self.checkpoint_every!r}; expected "
                "minutes or steps, such as 10min or 500steps."
            )
        if match.group(2) == "steps":
            return None, int(number)
        return 60.0 * number, None

    def filled(self):
        """The configuration with every default filled in, values unchecked."""
        defaults = dataclasses.asdict(data.defaults(self.dataset))
        # A data set's own radius is of pixels in [0, 1].
        defaults["epsilon"] *= self.pixel_max - self.pixel_min
        if self.norm == "l2" and self.epsilon is None:
            raise ValueError(
                "--norm=l2 needs an --epsilon; data sets have a "
                "default for linf alone (0.5, or 128/255, is usual for "
                "CIFAR-10 in l2, 1.5 for MNIST)."
            )
        self._check_number("weight_decay")
        optimizer = optimizers.complete(
            optimizers.with_decay(self.optimizer, self.weight_decay)
        )
        given = dataclasses.replace(
            self,
            defense=self._whole_defense(),
            regularization=None,
            **{
                name: value
                for name, value in defaults.items()
                if getattr(self, name) is None
            },
        )
        step_size = given.attack_step_size
        return dataclasses.replace(
            given,
            workdir=given.workdir or given._own_name(),
            augment=augmentation_names.complete(given.augment),
            model=names.complete(given.model),
            defense=defenses.complete(given.defense, given.epsilon),
            attack_step_size=(
                given.epsilon / 4 if step_size is None else step_size
            ),
            update=training.update_names.complete(given.update),
            optimizer=optimizer,
            weight_decay=(
                given.weight_decay
                if optimizers.own_decay(optimizer) is None
                else None
            ),
            schedule=schedule_names.complete(given.schedule),
            callbacks=(
                None
                if given.callbacks is None
                else own_callbacks.complete(given.callbacks)
            ),
        )

    def _own_name(self):
        """A workdir named after what is trained; defaults are not in it."""
        parts = (self.dataset, names.canonical(self.model), self.defense)
        if self.pool is not None:
            parts += ("pool",)
        if self.seed:
            parts += (f"seed{self.seed}",)
        return "runs/" + "_".join(
            re.sub(r"[^\w.]+", "-", part).strip("-") for part in parts
        )

    def _whole_defense(self):
        """The defense spec, its defaults left out, `--regularization` in it."""
        spec = defenses.names.resolve(self.defense)
        if self.regularization is None:
            return defenses.names.canonical(self.defense)
        self._check_number("regularization")
        if "regularization" in spec.options:
            raise ValueError(
                f"--regularization={self.regularization:g} and --defense="
                f"{self.defense} both set the regularization; give one."
            )
        whole = f"{self.defense}:regularization={self.regularization!r}"
        return defenses.names.canonical(whole)

    def _check(self):
        places.expanded("--workdir", self.workdir)
        data.check(self.dataset, data_dir=self.data_dir, download=self.download)
        optimizers.check(self.optimizer)
        self.interval()
        if self.class_weights is not None:
            class_weights.parse(self.class_weights)
        self._check_words()
        choices.check_radius(
            "--epsilon", self.epsilon, self.norm, *self.pixel_range
        )
        for name in LIMITS:
            self._check_number(name)
        for name, example in _BELOW_ONE.items():
            if getattr(self, name) >= 1.0:
                raise ValueError(
                    f"--{name} is {getattr(self, name):g}; expected less than "
                    f"1, such as {example}."
                )
        self._check_average()
        self.check_validation()
        self._check_pool()

    def _check_words(self):
        for kind, value, allowed in [
            ("precision", self.precision, runs.PRECISIONS),
            ("strategy", self.strategy, runs.STRATEGIES),
            ("XLA", self.xla, runs.XLA),
            ("norm", self.norm, choices.NORMS),
            ("outputs", self.outputs, choices.OUTPUTS),
            ("random start", self.random_start, choices.RANDOM_STARTS),
            (
                "attack batch norm",
                self.attack_batch_norm,
                choices.ATTACK_BATCH_NORM,
            ),
        ]:
            if value not in allowed:
                raise options.unknown(kind, value, allowed)

    def _check_average(self):
        """Refuses a warm-up of no average, two of them, or a whole run."""
        for name in ("ema_warmup", "ema_warmup_epochs"):
            if getattr(self, name) and not self.ema:
                raise ValueError(
                    f"--{name}={getattr(self, name):g} is of an average of the "
                    "weights, and none is kept; give --ema too."
                )
        if self.ema_warmup and self.ema_warmup_epochs:
            raise ValueError(
                f"--ema_warmup={self.ema_warmup:g}, a share of the run, and "
                f"--ema_warmup_epochs={self.ema_warmup_epochs:g} both set the "
                "warm-up of the average; give one."
            )
        if self.ema_warmup_epochs and self.ema_warmup_epochs >= self.epochs:
            raise ValueError(
                f"--ema_warmup_epochs={self.ema_warmup_epochs:g} is the whole "
                f"run of --epochs={self.epochs}, whose average would be its "
                "last weights; expected fewer."
            )

    def _check_pool(self):
        """Refuses a pool that is none, and settings of one where none is."""
        if self.pool is None:
            for name in ("pool_fraction", "unlabeled_weight"):
                if getattr(self, name) != getattr(Config, name):
                    raise ValueError(
                        f"--{name}={getattr(self, name):g} is of a pool, and "
                        "there is none; give --pool too."
                    )
            return
        data.check_pool(
            self.pool, data_dir=self.data_dir, download=self.download
        )
        if not 0.0 < self.pool_fraction < 1.0:
            raise ValueError(
                f"--pool_fraction is {self.pool_fraction:g}; expected a share "
                "of each batch, above 0 and below 1."
            )

    def check_validation(self):
        """Refuses what looks at a validation split where there is none."""
        if self.early_stopping_patience and self.validation_images == 0:
            raise ValueError(
                f"--early_stopping_patience={self.early_stopping_patience} "
                "looks at the validation split, and --validation_images is 0; "
                "hold some images out."
            )
        is_natural = (self.defense or "").partition(":")[0] == "natural"
        if self.stop_on_collapse and is_natural and self.validation_images == 0:
            raise ValueError(
                "--stop_on_collapse looks at accuracy on the validation split "
                "where --defense=natural attacks nothing in training, and "
                "--validation_images is 0; hold some images out."
            )

    def _check_pixels(self):
        """Refuses what is no range, or not that of the model file."""
        low, high = self.pixel_range
        choices.check_pixels("--pixel_min", "--pixel_max", low, high)
        is_file = (self.model or "").endswith(".keras")
        said = declared.read(self.model) if is_file else None
        if said and said.pixel_range != (low, high):
            raise ValueError(
                f"--model={self.model} takes pixels from "
                f"{said.pixel_range[0]:g} to {said.pixel_range[1]:g}, not from "
                f"{low:g} to {high:g}; give --pixel_min="
                f"{said.pixel_range[0]:g} --pixel_max={said.pixel_range[1]:g}."
            )

    def _check_number(self, name):
        value = getattr(self, name)
        if value is not None:
            LIMITS[name].check(f"--{name}", value)

    def differences(self, earlier):
        """Names of the settings that forbid continuing an earlier run."""
        own = self
        if own.validation_images is None:
            # As many as the run began with.
            images = earlier.validation_images
            own = dataclasses.replace(own, validation_images=images)
        return [
            field.name
            for field in dataclasses.fields(own)
            if field.name not in FREE_TO_DIFFER
            and getattr(own, field.name) != getattr(earlier, field.name)
        ]
