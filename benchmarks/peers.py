"""What benchmarks that compare with ART share."""

from art.estimators import classification
import keras


def art_classifier(classify, images, threat):
    """A network as the Adversarial Robustness Toolbox takes it.

    Args:
        classify: Images to logits, the callable that ours attacks too.
        images: float32 array `[n, ...]`.
        threat: The `ThreatModel`, for the pixel range.
    """
    return classification.TensorFlowV2Classifier(
        model=lambda images, training: classify(images),
        nb_classes=classify(images[:1]).shape[1],
        input_shape=images.shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True
        ),
        clip_values=(threat.pixel_min, threat.pixel_max),
    )
