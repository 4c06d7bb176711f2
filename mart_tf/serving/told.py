"""What a user is told of a version that was written."""

from mart_tf import bounds


def lines(version, not_attacked=None):
    """What it answers to, and what was verified.

    Args:
        version: A `saved_model.Version`.
        not_attacked: Why it was not attacked, a sentence, or None.

    Returns:
        A list of lines.
    """
    said = []
    for name, described in version.signatures.items():
        said.append(f"Signature {name}:")
        said.extend(f"  {line}" for line in described)
    tried = version.verification
    said.append(
        "Run on TensorFlow's C++ runtime, in a process without its Python, "
        f"its {version.warmup} warm-up requests too: logits within "
        f"{tried['difference']:.1e} of Keras's, as a share of their largest "
        "magnitude."
    )
    if not_attacked:
        said.append(f"Not attacked: {not_attacked}")
    else:
        said.append(
            "Attacked through the SavedModel with PGD-20 on "
            f"{tried['attacked_examples']} test images: "
            f"{bounds.percentage(tried['served_accuracy'])} withstand, of the "
            f"classifier's {bounds.percentage(tried['trained_accuracy'])}; "
            f"natural accuracy {bounds.percentage(tried['natural_accuracy'])}."
        )
        said.extend(tried["warnings"])
    for name, facts in version.files.items():
        said.append(
            f"Beside it assets.extra/{name}, run by {facts['runtime']}:"
        )
        said.append(
            "  the classifier's class of "
            f"{bounds.percentage(facts['same_class'])} of {facts['images']} "
            "test images"
        )
        for attack, accuracy in facts["accuracy"].items():
            whole = facts["classifier_accuracy"][attack]
            said.append(
                f"  {attack}: {bounds.percentage(accuracy)}, of the "
                f"classifier's {bounds.percentage(whole)}"
            )
    return said
