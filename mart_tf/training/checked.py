"""Keras's compile, fit and evaluate, with what they are given checked."""

from typing import Any

import keras

from mart_tf import private
from mart_tf.training import arguments
from mart_tf.training import epoch
from mart_tf.training import inputs
from mart_tf.training import replicas
from mart_tf.training import watch


class CheckedModel(private.BuiltOnce):
    """The side of an AdversarialClassifier that Keras drives."""

    # Whether `compile` was given metrics.
    has_metrics = False
    # Of batch norm, in the inner attack.
    attack_batch_norm = "inference"
    # Whether it was said that epochs begin at 0 again.
    told_of_epochs = False
    # What XLA compiles: False, "attack", or True, the whole step.
    compiled_by_xla = False

    def prepare(self, greatest_row):
        """Makes what only the data can tell the size of.

        Args:
            greatest_row: The greatest row of the training data, or None.
        """

    def build_for(self, x):
        """Builds a classifier that its first call builds, before a trace.

        Args:
            x: What `fit`, `evaluate` or `predict` is given.
        """

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        metrics=None,
        weighted_metrics=None,
        jit_compile: bool | str = False,
        **kwargs,
    ) -> None:
        """As `keras.Model.compile`, without a loss: the defense is the loss.

        `jit_compile` is off unless asked for, as XLA is several times slower
        on a CPU: "attack" has it compile the inner attack alone, under any
        strategy; True the whole step, on one replica. Of a classifier from a
        strategy's scope, what has a name is made in there.

        Raises:
            ValueError: If a loss is given, or an optimizer that scales it or
                averages the weights, or one from outside the classifier's
                scope, `jit_compile` is anything else, or something is asked
                for that Keras cannot do on several replicas (`replicas`).
        """
        arguments.check_compile(loss, jit_compile)
        self.compiled_by_xla = jit_compile
        self.has_metrics = bool(metrics or weighted_metrics)
        with self.distribute_strategy.scope():
            super().compile(
                optimizer=optimizer,
                metrics=metrics,
                weighted_metrics=weighted_metrics,
                jit_compile=jit_compile is True,
                **kwargs,
            )
        self.skips.begin()
        arguments.check_optimizer(self.optimizer, self.weight_decay)
        arguments.check_scopes(self, [metrics, weighted_metrics])
        replicas.check_compiled(self)

    def get_compile_config(self):
        config = super().get_compile_config()
        if config and self.compiled_by_xla == "attack":
            config["jit_compile"] = "attack"
        return config

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        config.pop("loss", None)
        self.compile(**config)
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs: int = 1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        *args,
        check_data: bool = True,
        **kwargs,
    ) -> keras.callbacks.History:
        """As `keras.Model.fit`; bad images and labels are refused first.

        Arrays are looked at whole; of a tf.data set or a PyDataset the first
        batch, which is read once more for it; a generator not at all.

        What goes by epochs (`Dynamic`, `AWP(from_epoch=...)`) takes those of
        `fit`, from 0: in a loop say `initial_epoch=n, epochs=n + 1`. A later
        `fit` from 0 brings one warning.

        Args:
            x, y, batch_size, epochs, verbose, callbacks, validation_split,
                validation_data: As in Keras.
            check_data: False for data that is known to be sound.

        Raises:
            ValueError: With one sentence, before work starts.
        """
        x = inputs.with_rows(self.defense, inputs.single(x))
        if check_data:
            inputs.check_training(self, x, y, validation_data)
        self.build_for(x)
        with self.distribute_strategy.scope():
            self.prepare(inputs.greatest_row(x))
        return super().fit(
            x,
            y,
            batch_size,
            epochs,
            verbose,
            epoch.with_own(
                callbacks, self, inputs.are_weighted(x, *args, **kwargs)
            ),
            validation_split,
            validation_data,
            *args,
            **kwargs,
        )

    def train_on_batch(self, x, *args, **kwargs) -> Any:
        """As `keras.Model.train_on_batch`; it too counts skipped steps.

        Raises:
            ValueError: As `fit` does with more than `max_skipped_steps` of
                them in a row, and again until `compile` or `fit` is called;
                on several replicas.
        """
        replicas.check_batch_call(self, "train_on_batch")
        self.build_for(x)
        logs = super().train_on_batch(x, *args, **kwargs)
        watch.check_skips(self)
        return logs

    def test_on_batch(self, x, *args, **kwargs) -> Any:
        """As `keras.Model.test_on_batch`; refused on several replicas."""
        replicas.check_batch_call(self, "test_on_batch")
        self.build_for(x)
        return super().test_on_batch(x, *args, **kwargs)

    def predict_on_batch(self, x) -> Any:
        """As `keras.Model.predict_on_batch`; refused on several replicas."""
        replicas.check_batch_call(self, "predict_on_batch")
        self.build_for(x)
        return super().predict_on_batch(x)

    def make_train_function(self, force=False):
        # Variables that a step's first trace makes cost a second trace.
        if self.built and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
        super().make_train_function(force)

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        *args,
        check_data: bool = True,
        **kwargs,
    ) -> Any:
        """As `keras.Model.evaluate`; bad data is refused as in `fit`."""
        x = inputs.single(x)
        if check_data and not private.is_called_by_fit(kwargs):
            inputs.check(self, x, y)
        self.build_for(x)
        return super().evaluate(x, y, batch_size, *args, **kwargs)

    def predict(self, x, *args, **kwargs) -> Any:
        """As `keras.Model.predict`: the scores that are evaluated."""
        x = inputs.single(x)
        self.build_for(x)
        return super().predict(x, *args, **kwargs)

    def load_weights(self, filepath, *args, **kwargs) -> None:
        """As `keras.Model.load_weights`, the average of the weights too.

        Raises:
            ValueError: If the defense keeps something of each example and
                `rows` is not given: Keras would leave it out without a word.
        """
        self.memory.check_rows_known()
        self.build_for(None)
        super().load_weights(filepath, *args, **kwargs)
