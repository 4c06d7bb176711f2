"""AdversarialClassifier: the Keras model that trains a robust classifier."""

import dataclasses
import math
import numbers

import keras
import tensorflow as tf

from mart_tf import attacks
from mart_tf import defenses
from mart_tf import noise
from mart_tf import options
from mart_tf import threat as threat_model
from mart_tf.defenses import base
from mart_tf.models import outputs as model_outputs
from mart_tf.training import dropout
from mart_tf.training import epoch
from mart_tf.training import inputs
from mart_tf.training import memory
from mart_tf.training import own_losses
from mart_tf.training import reduction

# Streams of random numbers that must not coincide: the noise of a training
# step is folded from its step, 0 and up.
_TEST_STREAM = -1
_DROPOUT_STREAM = -2


@keras.saving.register_keras_serializable(package="mart_tf")
class AdversarialClassifier(keras.Model):
    """Trains a Keras classifier against an attack inside a threat model.

    One training step: the defense finds adversarial examples with the network
    in inference mode, then runs the forward passes that its loss needs; the
    mean is over the global batch, whatever the number of replicas:

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
        epsilon_warmup_steps: Training steps over which epsilon, and the
            attack's step with it, grow linearly from 0.
        weight_decay: Coupled L2: `weight_decay * w` is added to the reduced
            gradient of every trainable variable.
        outputs: What the classifier returns: "logits" or "probabilities".
        seed: Seed of all noise, an integer of at least 0.
        rows: One more than the greatest row of the training data, for
            defenses that keep something of each example (`mma`); default:
            counted, where `fit` is given arrays.

    Raises:
        ValueError: On a value outside its range, or a classifier that ends in
            a softmax without `outputs="probabilities"`.
    """

    def __init__(
        self,
        classifier,
        defense="mart",
        threat=None,
        attack_steps=10,
        attack_step_size=None,
        *,
        random_start="uniform",
        epsilon_warmup_steps=0,
        weight_decay=0.0,
        outputs="logits",
        seed=0,
        rows=None,
        **kwargs,
    ):
        defense = defenses.get(defense)
        for name, value, kind in [
            ("classifier", classifier, keras.Model),
            ("defense", defense, base.Defense),
            ("threat", threat, threat_model.ThreatModel),
            ("attack_steps", attack_steps, numbers.Integral),
            ("attack_step_size", attack_step_size, numbers.Real | None),
            ("weight_decay", weight_decay, numbers.Real),
            ("seed", seed, numbers.Integral),
            ("rows", rows, numbers.Integral | None),
        ]:
            inputs.check_type(name, value, kind)
        attacks.check_settings(attack_steps, attack_step_size, random_start)
        defense.check(threat, random_start)
        for name, value in [
            ("epsilon_warmup_steps", epsilon_warmup_steps),
            ("weight_decay", weight_decay),
            ("seed", seed),
            ("rows", rows or 0),
        ]:
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"{name} is {value!r}; expected a number of at least 0."
                )
        model_outputs.check_declared(classifier, outputs)
        inputs.check_scope(classifier)
        with classifier.distribute_strategy.scope():
            super().__init__(**kwargs)
            self.classifier = classifier
            self.defense = defense
            self.threat = threat
            self.attack_steps = int(attack_steps)
            self.attack_step_size = attack_step_size
            self.random_start = random_start
            self.epsilon_warmup_steps = int(epsilon_warmup_steps)
            self.weight_decay = float(weight_decay)
            self.outputs = outputs
            self.seed = int(seed)
            # Batches consumed; optimizer.iterations stands still when an
            # update is skipped.
            self.step = self._counter("step")
            # Told by fit, counted from 0.
            self.epoch = self._counter("epoch")
            self.memory = memory.Memory(defense.memory(threat), rows)
            self.loss_tracker = keras.metrics.Mean(name="loss")
            self.natural_accuracy = keras.metrics.Mean(name="natural_accuracy")
            self.robust_accuracy = keras.metrics.Mean(name="robust_accuracy")
            self.measures = {
                name: keras.metrics.Mean(name=name) for name in defense.measures
            }
        self.built = classifier.built
        self._has_metrics = False
        self.compiled_by_xla = False

    def call(self, inputs, training=None):
        image = inputs["image"] if isinstance(inputs, dict) else inputs
        return self.classifier(image, training=training)

    def build(self, input_shape):
        if not self.classifier.built:
            shape = input_shape
            if isinstance(input_shape, dict):
                shape = input_shape["image"]
            self.classifier.build(shape)
        self.built = True

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        metrics=None,
        weighted_metrics=None,
        jit_compile=False,
        **kwargs,
    ):
        """As `keras.Model.compile`, without a loss: the defense is the loss.

        `jit_compile` is off unless asked for, as XLA is several times slower
        on a CPU: "attack" has it compile the inner attack alone, under any
        strategy; True the whole step, which fails under a strategy.

        Raises:
            ValueError: If a loss or a loss-scaling optimizer is given, or
                `jit_compile` is anything else.
        """
        if jit_compile not in (True, False, "attack"):
            raise ValueError(
                f"compile got jit_compile={jit_compile!r}; expected False, "
                'True for the whole step, or "attack" for the attack alone.'
            )
        self.compiled_by_xla = jit_compile
        if loss is not None:
            raise ValueError(
                f"compile got loss={loss!r}; the defense is the loss, so give "
                "none: choose it by AdversarialClassifier(defense=...)."
            )
        self._has_metrics = bool(metrics or weighted_metrics)
        super().compile(
            optimizer=optimizer,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            jit_compile=jit_compile is True,
            **kwargs,
        )
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                "The optimizer scales its loss for float16, which is not "
                "supported; use the policy mixed_bfloat16 or float32."
            )

    def get_compile_config(self):
        config = super().get_compile_config()
        if config and self.compiled_by_xla == "attack":
            config["jit_compile"] = "attack"
        return config

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        config.pop("loss", None)
        self.compile(**config)
        self.optimizer.build(self.trainable_variables)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        *args,
        check_data=True,
        **kwargs,
    ):
        """As `keras.Model.fit`; bad images and labels are refused first.

        Arrays are looked at whole; of a tf.data set or a PyDataset the first
        batch, which is read once more for it; a generator not at all.

        Args:
            x, y, batch_size, epochs, verbose, callbacks, validation_split,
                validation_data: As in Keras.
            check_data: False for data that is known to be sound.

        Raises:
            ValueError: With one sentence, before work starts.
        """
        x = inputs.with_rows(self.defense, x)
        if check_data:
            inputs.check_training(self, x, y, batch_size, validation_data)
        with self.distribute_strategy.scope():
            self.memory.ensure(inputs.greatest_row(x))
        return super().fit(
            x,
            y,
            batch_size,
            epochs,
            verbose,
            epoch.with_own(callbacks, self),
            validation_split,
            validation_data,
            *args,
            **kwargs,
        )

    def evaluate(self, x=None, y=None, *args, check_data=True, **kwargs):
        """As `keras.Model.evaluate`; bad data is refused as in `fit`."""
        # Keras's own call from fit passes data that fit has checked.
        if check_data and not kwargs.get("_use_cached_eval_dataset"):
            inputs.check(self, x, y)
        return super().evaluate(x, y, *args, **kwargs)

    def export(self, filepath, *args, **kwargs):
        """As `keras.Model.export`, of the classifier: it is what is served.

        `mart_tf.export_saved_model` writes more: logits, probabilities and
        class names, encoded images, warm-up, a model card, verification.
        """
        return self.classifier.export(filepath, *args, **kwargs)

    def train_step(self, data):
        """The attack, the defense's loss, the update, the metrics."""
        inputs.check_rows(self.defense, data)
        batch, target = inputs.unpack(data, noise.fold(self.seed, self.step))
        batch = batch._replace(memory=self.memory.recall(batch.example))
        dropout.seed(
            self.classifier, noise.fold(self.seed, _DROPOUT_STREAM), self.step
        )
        adversarial = self._attacked(batch)
        self.memory.keep(batch.example, adversarial.memory)
        count = reduction.global_count(batch.image)
        here = tf.cast(tf.shape(batch.image)[0], tf.float32)
        with tf.GradientTape() as tape:
            outcome, own = self._loss(batch, adversarial, training=True)
            total = tf.reduce_sum(batch.weight * outcome.values)
            loss = (total + here * own) / count
        self._update(tape, loss)
        self.step.assign_add(1)
        counted = tf.ones_like(batch.weight)
        measured = self._report_measures(adversarial.measures)
        return measured | self._report(
            batch, target, data, outcome, counted, own
        )

    def test_step(self, data):
        """The same loss in inference mode, under PGD at the full epsilon."""
        batch, target = inputs.unpack(data, noise.fold(self.seed, _TEST_STREAM))
        # Its rows are those of another split.
        batch = batch._replace(example=-tf.ones_like(batch.example))
        inner = self._inner_attack(ramp=False)
        adversarial = base.Defense.attack(
            self.defense, self._classify_frozen, batch, inner
        )
        outcome, own = self._loss(batch, adversarial, training=False)
        if outcome.natural_logits is None:
            logits = self._classify_frozen(batch.image)
            outcome = outcome._replace(natural_logits=logits)
        if outcome.adversarial_logits is None:
            logits = self._classify_frozen(adversarial.image)
            outcome = outcome._replace(adversarial_logits=logits)
        # Rows of weight 0 fill the last batch of an evaluation up.
        counted = tf.cast(batch.weight != 0.0, tf.float32)
        return self._report(batch, target, data, outcome, counted, own)

    @property
    def metrics(self):
        own = [self.loss_tracker, self.natural_accuracy, self.robust_accuracy]
        own += self.measures.values()
        # Keras's own tracker of compile(loss=...) would log a second "loss".
        names = {metric.name for metric in own}
        return own + [m for m in super().metrics if m.name not in names]

    def get_metrics_result(self):
        """The metrics that have seen an example since their last reset."""
        results = super().get_metrics_result()
        if tf.executing_eagerly():
            for metric in (
                self.natural_accuracy,
                self.robust_accuracy,
                *self.measures.values(),
            ):
                if not float(tf.convert_to_tensor(metric.count.value)):
                    results.pop(metric.name, None)
        return results

    def settings(self):
        """How it trains, every default filled in: plain values by name."""
        targets = {target: name for name, target in defenses.DEFENSES.items()}
        kind = type(self.defense)
        name = targets.get(f"{kind.__module__}:{kind.__name__}", kind.__name__)
        chosen = self.defense.get_config().items()
        return {
            "defense": ":".join([name, *(f"{k}={v}" for k, v in chosen)]),
            **dataclasses.asdict(self.threat),
            "attack_steps": self.attack_steps,
            "attack_step_size": self._step_size(),
            "random_start": self.random_start,
            "epsilon_warmup_steps": self.epsilon_warmup_steps,
            "weight_decay": self.weight_decay,
            "outputs": self.outputs,
            "seed": self.seed,
            "steps": int(self.step),
        }

    def get_config(self):
        config = super().get_config()
        config.update(
            classifier=keras.saving.serialize_keras_object(self.classifier),
            defense=keras.saving.serialize_keras_object(self.defense),
            threat=dataclasses.asdict(self.threat),
            attack_steps=self.attack_steps,
            attack_step_size=self.attack_step_size,
            random_start=self.random_start,
            epsilon_warmup_steps=self.epsilon_warmup_steps,
            weight_decay=self.weight_decay,
            outputs=self.outputs,
            seed=self.seed,
            rows=self.memory.rows,
        )
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        # A defense is registered when its module is first imported.
        for target in defenses.DEFENSES.values():
            options.load(target)
        for name in ("classifier", "defense"):
            config[name] = keras.saving.deserialize_keras_object(
                config[name], custom_objects=custom_objects
            )
        config["threat"] = threat_model.ThreatModel(**config["threat"])
        return cls(**config)

    def _counter(self, name):
        return self.add_weight(
            name=name,
            dtype="int64",
            trainable=False,
            initializer="zeros",
            aggregation="only_first_replica",
        )

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
            self.epoch.value,
        )

    def _attacked(self, batch):
        """What the defense's attack finds, in a graph for XLA if asked for."""

        def attack():
            return self.defense.attack(
                self._classify_frozen, batch, self._inner_attack()
            )

        if self.compiled_by_xla == "attack":
            attack = tf.function(attack, autograph=False, jit_compile=True)
        return attack()

    def _step_size(self):
        return self.attack_step_size or self.threat.epsilon / 4.0

    def _classify_frozen(self, images):
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
            own += own_losses.of_last_pass(self.classifier)
            return logits

        return self.defense.loss(classify, batch, adversarial), own

    def _update(self, tape, loss):
        variables = self.trainable_variables
        gradients = tape.gradient(loss, [v.value for v in variables])
        gradients = reduction.decayed(gradients, variables, self.weight_decay)
        gradients = reduction.clip_globally(gradients, self.optimizer)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))

    def _report_measures(self, measures):
        """Updates the metrics of what the attack measured."""
        for name, values in measures.items():
            self.measures[name].update_state(values)
        return {name: self.measures[name].result() for name in measures}

    def _report(self, batch, target, data, outcome, counted, own):
        """Updates the metrics that this step has something for."""
        self.loss_tracker.update_state(
            batch.weight * outcome.values + own, counted
        )
        reported = {"loss": self.loss_tracker}
        for tracker, logits in [
            (self.natural_accuracy, outcome.natural_logits),
            (self.robust_accuracy, outcome.adversarial_logits),
        ]:
            if logits is not None:
                predicted = tf.argmax(logits, axis=1, output_type=tf.int32)
                tracker.update_state(predicted == batch.label, counted)
                reported[tracker.name] = tracker
        results = {}
        if self._has_metrics:
            logits = outcome.natural_logits
            if logits is None:
                logits = self._classify_frozen(batch.image)
            weight = keras.utils.unpack_x_y_sample_weight(data)[2]
            results = self.compute_metrics(None, target, logits, weight)
        own_names = {"loss", "natural_accuracy", "robust_accuracy"}
        own_names |= set(self.measures)
        results = {k: v for k, v in results.items() if k not in own_names}
        return {
            **{name: metric.result() for name, metric in reported.items()},
            **results,
        }
