"""Keras classifiers that return float32 logits, by name.

`MODELS` is the table of names; each names a function
`(input_shape, num_classes, **options) -> keras.Model`, imported on first use.
"""

import typing

from mart_tf import lazy

if typing.TYPE_CHECKING:
    from mart_tf.models.applications import application as application
    from mart_tf.models.loading import build as build
    from mart_tf.models.preactivation import preact_resnet18 as preact_resnet18
    from mart_tf.models.preactivation import wide_resnet as wide_resnet
    from mart_tf.models.resnet import resnet18 as resnet18
    from mart_tf.models.resnet import resnet50 as resnet50
    from mart_tf.models.small import cnn4 as cnn4
    from mart_tf.models.small import cnn8 as cnn8
    from mart_tf.models.small import digits_cnn as digits_cnn
    from mart_tf.models.small import small_cnn as small_cnn

MODELS = {
    "digits_cnn": "mart_tf.models.small:digits_cnn",
    "small_cnn": "mart_tf.models.small:small_cnn",
    "cnn4": "mart_tf.models.small:cnn4",
    "cnn8": "mart_tf.models.small:cnn8",
    "resnet18": "mart_tf.models.resnet:resnet18",
    "resnet50": "mart_tf.models.resnet:resnet50",
    "preact_resnet18": "mart_tf.models.preactivation:preact_resnet18",
    "wide_resnet": "mart_tf.models.preactivation:wide_resnet",
    "keras": "mart_tf.models.applications:application",
}

__getattr__, __dir__ = lazy.attributes(
    __name__,
    {
        **{path.partition(":")[2]: path for path in MODELS.values()},
        "build": "mart_tf.models.loading:build",
    },
)
