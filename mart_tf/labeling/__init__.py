"""What a trained network says of images: pools, the subsets of Figure 1."""

import typing

from mart_tf import lazy

if typing.TYPE_CHECKING:
    from mart_tf.labeling.labels import label_pool as label_pool
    from mart_tf.labeling.picking import pick_subsets as pick_subsets

__getattr__, __dir__ = lazy.attributes(
    __name__,
    {
        "label_pool": "mart_tf.labeling.labels:label_pool",
        "pick_subsets": "mart_tf.labeling.picking:pick_subsets",
    },
)
