"""AdversarialClassifier: the Keras model that trains a robust classifier."""

from typing import Any

import keras
import tensorflow as tf

from mart_tf import defenses
from mart_tf import noise
from mart_tf import private
from mart_tf import threat as threat_model
from mart_tf.attacks import given
from mart_tf.defenses import base
from mart_tf.models import outputs as model_outputs
from mart_tf.training import arguments
from mart_tf.training import attack_statistics
from mart_tf.training import averages
from mart_tf.training import checked
from mart_tf.training import counters
from mart_tf.training import dropout
from mart_tf.training import fused_norm
from mart_tf.training import image_gradient
from mart_tf.training import inputs
from mart_tf.training import logs
from mart_tf.training import memory
from mart_tf.training import own_losses
from mart_tf.training import reduction
from mart_tf.training import settings
from mart_tf.training import skips
from mart_tf.training import update as updates

# Streams of random numbers that must not coincide: the noise of a training
# step is folded from its step, 0 and up.
_TEST_STREAM = -1
_DROPOUT_STREAM = -2


@keras.saving.register_keras_serializable(package="mart_tf")
class AdversarialClassifier(checked.CheckedModel):
    """Trains a Keras classifier against an attack inside a threat model.

    One training step: the defense finds adversarial examples with the network
    in inference mode (but for `attack_batch_norm`), then runs the forward
    passes that its loss needs; the mean is over the global batch, whatever the
    number of replicas:

        sum of weight * loss / global number of examples

    To it come the classifier's own losses: regularizers of weights once,
    those of activities and `add_loss` for each forward pass of the loss (MART:
    natural and adversarial).

    Training logs `loss`, and `natural_accuracy` and `robust_accuracy` as far
    as the defense's own forward passes give them (`natural` never sees x',
    `standard` never sees x), and what the defense measures (`fosc` of
    `dynamic`, `margin` of `mma`); evaluation logs the first three, attacking
    with PGD of `attack_steps` at the full epsilon. Metrics given to `compile`
    see the natural logits.

    Everything random is a pure function of (seed, step, example), where an
    example is the entry of `"index"` in an input `{"image": ..., "index":
    ...}`, or its position in the global batch for other inputs.

    With `ema`, training goes on with the weights as they are, and evaluation,
    validation, predictions and exports take their average: see
    `mart_tf.training.averages` and `averaged`.

    A callback that watches one of these accuracies is told what better means:
    `EarlyStopping("val_robust_accuracy", mode="max")`.

    Args:
        classifier: A Keras model from images `[batch, ...]` to `[batch,
            classes]`. It stays the caller's own object.
        defense: A name, a spec ("mart:regularization=5:form=released") or a
            `mart_tf.defenses.Defense`.
        threat: The `ThreatModel`.
        attack_steps: Steps of the inner attack, at least 1.
        attack_step_size: In units of the pixels; default: epsilon / 4.
        random_start: "uniform", "gaussian" or "none".
        attack_batch_norm: What batch norm normalizes by in the attack of a
            training step: "inference", the moving statistics, or "batch",
            those of the batch, which leaves the moving ones as they are; see
            `mart_tf.training.attack_statistics`. Dropout is off in both.
        epsilon_warmup_steps: Steps of `fit` over which epsilon, and the
            attack's step with it, grow linearly from 0; with accumulated
            gradients they are several to an update of the weights.
        update: How the gradient is taken: "plain", a spec, or a
            `mart_tf.training.update.Update`.
        weight_decay: Coupled L2: `weight_decay * w` is added to the reduced
            gradient of every trainable variable.
        label_smoothing: s in [0, 1): the cross-entropies of the loss have
            (1 - s) of their label and s / classes of every class; the attack
            does not. See `mart_tf.losses.cross_entropy`.
        ema: Decay of the average of the weights, in [0, 1), taken with each
            update of them; 0: none is kept.
        ema_warmup_steps: Steps of `fit` before the decay begins to rise.
        max_skipped_steps: How many training steps in a row may be skipped
            because a number in them is not finite, at least 0; with one more
            `fit` ends, and `train_on_batch`: see `mart_tf.training.skips`.
            After too many `fit` and `compile` count anew.
        outputs: What the classifier returns: "logits" or "probabilities".
        seed: Seed of all noise, an integer from 0 to 2^31 - 1.
        rows: One more than the greatest row of the training data, for
            defenses that keep something of each example (`mma`); default:
            counted, where `fit` is given arrays.
        kwargs: As of `keras.Model`, such as a name.

    Raises:
        ValueError: On a value outside its range, or a classifier that ends in
            a softmax without `outputs="probabilities"`.
    """

    classifier: keras.Model
    threat: threat_model.ThreatModel

    def __init__(
        self,
        classifier: keras.Model,
        defense: str | base.Defense = "mart",
        threat: threat_model.ThreatModel | None = None,
        attack_steps: int = 10,
        attack_step_size: float | None = None,
        *,
        random_start: str = "uniform",
        attack_batch_norm: str = "inference",
        epsilon_warmup_steps: int = 0,
        update: str | updates.Update = "plain",
        weight_decay: float = 0.0,
        label_smoothing: float = 0.0,
        ema: float = 0.0,
        ema_warmup_steps: int = 0,
        max_skipped_steps: int = 10,
        outputs: str = "logits",
        seed: int = 0,
        rows: int | None = None,
        **kwargs,
    ) -> None:
        defense, update = defenses.get(defense), updates.get(update)
        arguments.check(locals())
        with classifier.distribute_strategy.scope():
            super().__init__(**kwargs)
            self.classifier = classifier
            self.defense = defense
            self.threat = threat
            self.attack_steps = int(attack_steps)
            self.attack_step_size = (
                None if attack_step_size is None else float(attack_step_size)
            )
            self.random_start = random_start
            self.attack_batch_norm = attack_batch_norm
            self.epsilon_warmup_steps = int(epsilon_warmup_steps)
            self.update = update
            self.weight_decay = float(weight_decay)
            self.label_smoothing = float(label_smoothing)
            self.outputs = outputs
            self.seed = int(seed)
            # Batches consumed.
            self.step = counters.add(self, "step")
            # Told by fit, counted from 0.
            self.epoch = counters.add(self, "epoch")
            self.memory = memory.Memory(defense.memory(threat), rows)
            self.averages = averages.Averages(ema, ema_warmup_steps)
            self.skips = skips.Skips(int(max_skipped_steps))
            if classifier.built:
                self.averages.ensure(classifier.trainable_variables)
            self.logs = logs.Logs(defense.measures)
        self.built = classifier.built

    def call(self, inputs, training=None):
        image = inputs["image"] if isinstance(inputs, dict) else inputs
        if training:
            return self.classifier(image, training=True)
        with self._averaged():
            return self.classifier(image, training=training)

    def build(self, input_shape):
        if not self.classifier.built:
            shape = input_shape
            if isinstance(input_shape, dict):
                shape = input_shape["image"]
            self.classifier.build(shape)
        self.built = True

    def build_for(self, x):
        if not self.classifier.built:
            image = inputs.blank(x)
            if image is None:
                return
            with self.distribute_strategy.scope():
                self.classifier(image)
        self.built = True
        if not self.averages.begun:
            with self.distribute_strategy.scope():
                self.averages.ensure(self.classifier.trainable_variables)

    def prepare(self, greatest_row):
        self.memory.ensure(greatest_row)
        if self.classifier.built:
            self.averages.ensure(self.classifier.trainable_variables)

    def export(self, filepath, *args, **kwargs):
        """As `keras.Model.export`, of `averaged`: it is what is served.

        `mart_tf.export_saved_model` writes more: logits, probabilities and
        class names, encoded images, warm-up, a model card, verification.
        """
        return self.averaged().export(filepath, *args, **kwargs)

    def averaged(self) -> keras.Model:
        """The classifier as it is evaluated and served.

        Returns:
            With `ema` a copy of the classifier that has the average of its
            weights; else the classifier itself.
        """
        return self.averages.applied(self.classifier, self._updates())

    def train_step(self, data):
        """The attack, the loss, the update, the metrics."""
        self._check_built()
        inputs.check_rows(self.defense, data)
        changing = self._changing()
        before = [tf.identity(variable.value) for variable in changing]
        batch, labels = inputs.unpack(data, noise.fold(self.seed, self.step))
        batch = batch._replace(memory=self.memory.recall(batch.example))
        dropout.seed(
            self.classifier, noise.fold(self.seed, _DROPOUT_STREAM), self.step
        )
        adversarial = self._attacked(batch)
        self.memory.keep(batch.example, adversarial.memory)
        loss = self._shared_loss(batch, adversarial)
        every, changed = self._steps_per_update(), None
        if every > 1:
            updates = tf.convert_to_tensor(self.optimizer.iterations)
        losses, own = self.update(self, loss)
        if every > 1:
            changed = self.optimizer.iterations > updates
        self.averages.update(
            self.trainable_variables, self.step, every, changed
        )
        self.step.assign_add(1)
        skipped = self.skips.judge(
            {
                "images": [batch.image],
                "adversarial": [adversarial.image],
                "measures": [
                    *adversarial.measures.values(),
                    *adversarial.memory.values(),
                ],
                "logits": [losses.natural_logits, losses.adversarial_logits],
                "loss": [batch.weight * losses.values],
                "own": [own],
                "state": [variable.value for variable in changing],
            }
        )
        logits = None
        if self.has_metrics:
            logits = losses.natural_logits
            if logits is None:
                logits = self._classify_frozen(batch.image)
            private.build_metrics(self, labels, logits)
        metrics = self.metrics_variables
        changing += metrics
        before += [tf.identity(variable.value) for variable in metrics]
        counted = tf.ones_like(batch.weight)
        self.logs.measure(adversarial.measures)
        seen = self._take(batch, labels, data, losses, counted, own, logits)
        reduction.put_back(changing, before, skipped)
        if every > 1:
            # Also where it was skipped, an update ends what was summed for it.
            sums = private.accumulators(self.optimizer)
            reduction.put_back(sums, map(tf.zeros_like, sums), changed)
        self.logs.count(skipped)
        return self._results({*adversarial.measures, *seen})

    def test_step(self, data):
        """The same loss in inference mode, under PGD at the full epsilon.

        Where the input has no "index", examples at one place of two batches
        start from the same noise.
        """
        self._check_built()
        batch, labels = inputs.unpack(data, noise.fold(self.seed, _TEST_STREAM))
        # Its rows are those of another split.
        batch = batch._replace(example=-tf.ones_like(batch.example))
        inner = self._inner_attack(ramp=False)
        with self._averaged(), given.unseen():
            adversarial = base.Defense.attack(
                self.defense, self._classify_frozen, batch, inner
            )
            losses, own = self._loss(batch, adversarial, training=False)
            if losses.natural_logits is None:
                logits = self._classify_frozen(batch.image)
                losses = losses._replace(natural_logits=logits)
            if losses.adversarial_logits is None:
                logits = self._classify_frozen(adversarial.image)
                losses = losses._replace(adversarial_logits=logits)
        # Rows of weight 0 fill the last batch of an evaluation up.
        counted = tf.cast(batch.weight != 0.0, tf.float32)
        logits = losses.natural_logits
        seen = self._take(batch, labels, data, losses, counted, own, logits)
        return self._results(seen)

    @property
    def metrics(self):
        # Keras's own tracker of compile(loss=...) would log a second "loss".
        return self.logs.metrics + self.logs.without(super().metrics)

    def get_metrics_result(self):
        """The metrics that have seen an example since their last reset."""
        results = super().get_metrics_result()
        if tf.executing_eagerly():
            for name in self.logs.unshown():
                results.pop(name, None)
        return results

    def settings(self) -> dict[str, Any]:
        """How it trains, every default filled in: plain values by name."""
        return settings.shown(self)

    def get_config(self):
        return super().get_config() | settings.config(self)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**settings.restored(config, custom_objects))

    def _inner_attack(self, ramp=True):
        epsilon = self.threat.epsilon
        step_size = self._step_size()
        if ramp and self.epsilon_warmup_steps:
            share = tf.cast(self.step, tf.float32) / self.epsilon_warmup_steps
            epsilon *= tf.minimum(share, 1.0)
            step_size *= tf.minimum(share, 1.0)
        return base.InnerAttack(
            self.threat,
            self.attack_steps,
            step_size,
            epsilon,
            self.random_start,
            tf.cast(self.epoch.value, tf.float32),
        )

    def _attacked(self, batch):
        """What the defense's attack finds, in a graph for XLA if asked for."""

        def attack():
            return self.defense.attack(
                self._classify_attacked, batch, self._inner_attack()
            )

        if self.compiled_by_xla == "attack":
            attack = tf.function(attack, autograph=False, jit_compile=True)
        with attack_statistics.coupled(self.attack_batch_norm), given.unseen():
            return attack()

    def _averaged(self):
        """A scope in which the classifier has the average of its weights."""
        return self.averages.instead(self._updates())

    def _updates(self):
        """How often the weights have changed."""
        return averages.updates(self.step.value, self._steps_per_update())

    def _steps_per_update(self):
        optimizer = getattr(self, "optimizer", None)
        return (optimizer and optimizer.gradient_accumulation_steps) or 1

    def _step_size(self):
        return self.attack_step_size or self.threat.epsilon / 4.0

    def _classify_frozen(self, images):
        network = self.classifier
        with fused_norm.fused(network), image_gradient.as_product(network):
            return self._classify(images, training=False)

    def _classify_attacked(self, images):
        if self.attack_batch_norm == "inference":
            return self._classify_frozen(images)
        with attack_statistics.of_the_batch(self.classifier):
            return self._classify(images, training=False)

    def _classify(self, images, training):
        return model_outputs.logits(
            self.classifier(images, training=training), self.outputs
        )

    def _loss(self, batch, adversarial, training):
        """The defense's `Losses`, and the classifier's own of every pass."""
        own = own_losses.of_weights(self.classifier)

        def classify(images):
            nonlocal own
            logits = self._classify(images, training)
            own += own_losses.of_last_pass(self.classifier, training)
            return logits

        batch = batch._replace(label_smoothing=self.label_smoothing)
        losses = self.defense.loss(classify, batch, adversarial)
        shape = losses.values.shape
        if shape.rank not in (None, 1):
            # [batch, 1] times [batch] is [batch, batch].
            raise ValueError(
                f"The loss of {type(self.defense).__name__} has values of "
                f"shape {shape}; expected [batch], one for each example."
            )
        return losses, own

    def _shared_loss(self, batch, adversarial):
        """What the update makes smaller: this replica's share of the loss."""
        count = reduction.global_count(batch.image)
        here = tf.cast(tf.shape(batch.image)[0], tf.float32)

        def loss():
            losses, own = self._loss(batch, adversarial, training=True)
            # Of no examples, as a replica may have, a mean is NaN.
            own = tf.where(here > 0.0, own, 0.0)
            total = tf.reduce_sum(batch.weight * losses.values)
            return (total + here * own) / count, (losses, own)

        return loss

    def _take(self, batch, labels, data, losses, counted, own, logits):
        """Updates the metrics that this step has something for: their names."""
        seen = self.logs.take(batch, losses, counted, own)
        if not self.has_metrics:
            return seen
        weight = keras.utils.unpack_x_y_sample_weight(data)[2]
        results = self.compute_metrics(None, labels, logits, weight)
        return seen | {*results} - {metric.name for metric in self.logs.metrics}

    def _results(self, names):
        results = super().get_metrics_result()
        return {
            name: reduction.as_keras_reduces(results[name])
            for name in results
            if name in names
        }

    def _check_built(self):
        """Refuses a step on a classifier that has no weights yet."""
        if not self.classifier.built:
            raise ValueError(
                f"The classifier {self.classifier.name!r} is built by its "
                "first call, and its images are seen in a step alone; call it "
                "on a batch of images before, or begin it with a keras.Input."
            )

    def _changing(self):
        """The variables that a step changes, but metrics; no counters."""
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return [
            variable
            for variable in (*self.variables, *self.optimizer.variables)
            if tf.as_dtype(variable.dtype).is_floating
        ]
