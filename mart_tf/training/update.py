"""How a training step takes the gradient, and what it does with it."""

import inspect

import keras
import tensorflow as tf

from mart_tf import options
from mart_tf import training
from mart_tf.training import reduction


@keras.saving.register_keras_serializable(package="mart_tf")
class Update:
    """The plain update, and the base of every other.

    With F the loss of the batch and g its gradient, one step of the optimizer:

        w = optimizer(w, g),  g = dF/dw (w) + weight_decay w

    g is clipped as the optimizer says, after the sum over the replicas.

    A subclass gives `__call__`, in which it may ask for the gradient several
    times, at weights of its choice. It keeps each parameter of its `__init__`
    as an attribute of the same name, and is registered with `keras.saving`, so
    that a model that holds it can be saved. It holds no variables: the same
    object serves every replica.

    Attributes:
        reads_epoch: Whether it heeds `model.epoch`, counted from 0; where it
            does, a `fit` that begins at epoch 0 again is told of.
    """

    reads_epoch = False

    def __call__(self, model, loss):
        """Changes the weights by one step.

        Args:
            model: The `AdversarialClassifier`: its `trainable_variables`,
                `classifier`, `optimizer`, `weight_decay`, `step` and `epoch`.
            loss: A function without arguments that runs the forward passes,
                and returns this replica's share of the loss, a float32 scalar
                (the replicas' sum is F), and the auxiliary output of these
                passes, of which the logs tell.

        Returns:
            The auxiliary output of the passes that the logs shall tell of.
        """
        gradients, auxiliary = self.gradient(model, loss)
        self.apply(model, gradients)
        return auxiliary

    def gradient(self, model, loss, weights=None, keep_state=False):
        """The gradient of this replica's share, and the auxiliary output.

        Args:
            model: As above.
            loss: As above.
            weights: A tensor for each of `model.trainable_variables`: where to
                take it; the variables stay as they are. Default: at the
                weights as they are.
            keep_state: Whether what the forward passes at other weights
                change, such as batch-norm statistics, is kept; else that too
                stays as it is.

        Returns:
            A list of gradients, None for a variable that the loss does not
            reach, and the auxiliary output of the passes.

        Raises:
            ValueError: If passes at other weights assign trainable ones.
        """
        variables = model.trainable_variables
        if weights is None:
            with tf.GradientTape() as tape:
                value, auxiliary = loss()
            weights = [variable.value for variable in variables]
            return tape.gradient(value, weights), auxiliary
        weights = [tf.convert_to_tensor(weight) for weight in weights]
        elsewhere = keras.StatelessScope(
            zip(variables, weights, strict=True), collect_losses=True
        )
        with tf.GradientTape() as tape:
            tape.watch(weights)
            with elsewhere:
                value, auxiliary = loss()
        for variable, weight in zip(variables, weights, strict=True):
            if elsewhere.get_current_value(variable) is not weight:
                raise ValueError(
                    f"A forward pass assigns the trainable {variable.path}, as "
                    "keras.layers.SpectralNormalization does, and the update "
                    f"{type(self).__name__} makes passes at other weights, "
                    "where that is lost; expected a network without such a "
                    "layer, or update='plain'."
                )
        if keep_state:
            for variable in model.classifier.non_trainable_variables:
                changed = elsewhere.get_current_value(variable)
                if changed is not None:
                    variable.assign(changed)
        return tape.gradient(value, weights), auxiliary

    def summed(self, gradients):
        """Gradients of the loss of the whole batch, from each replica's."""
        return reduction.summed(gradients)

    def apply(self, model, gradients):
        """One step of the optimizer, from the weights as they are.

        Args:
            model: As above.
            gradients: This replica's; weight decay is added, clipping done.

        Raises:
            ValueError: If all are None.
        """
        variables = model.trainable_variables
        if all(gradient is None for gradient in gradients):
            raise ValueError(
                f"The loss of the defense {type(model.defense).__name__} has "
                f"no gradient to any of the network's {len(variables)} "
                "trainable weights; expected some, and a loss that is made of "
                "the logits that classify returns, by operations of "
                "TensorFlow or Keras."
            )
        gradients = reduction.decayed(gradients, variables, model.weight_decay)
        gradients = reduction.clip_globally(gradients, model.optimizer)
        model.optimizer.apply_gradients(zip(gradients, variables, strict=True))

    def get_config(self):
        """The options, as Keras saves them."""
        names = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config):
        """An update from what `get_config` returned."""
        return cls(**config)


def get(update):
    """The update named by a spec.

    Args:
        update: A name, a spec, `package.module:Name` with options, or an
            `Update`, which is returned as it is.

    Raises:
        ValueError: On an unknown name or option.
    """
    if not isinstance(update, str):
        return update
    spec = training.update_names.resolve(update)
    made = options.load(spec.import_path)(**spec.options)
    if not isinstance(made, Update):
        raise ValueError(
            f"Update {update!r} is a {type(made).__name__}; expected a "
            "subclass of mart_tf.training.Update."
        )
    return made
