"""What a trained network says of images: pools, the subsets of Figure 1."""

from mart_tf import lazy

__getattr__, __dir__ = lazy.attributes(
    __name__,
    {
        "label_pool": "mart_tf.labeling.labels:label_pool",
        "pick_subsets": "mart_tf.labeling.picking:pick_subsets",
    },
)
