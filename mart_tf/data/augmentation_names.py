"""What `--augment` takes: names with options, separated by commas.

TensorFlow is not imported here: a program checks its flags first.
"""

from mart_tf import data
from mart_tf import options

NONE = "none"

_NAMES = options.Names(data.AUGMENTATIONS, "augmentation")
_MIXES = (
    "mixes the labels of images too, and attack and loss take one class an "
    "image"
)
_REFUSED = dict.fromkeys(("cutmix", "mixup"), _MIXES)


def listed(augment):
    """The items of a list of augmentations, in order; none of "none" and None.

    Args:
        augment: Text as the flag takes it, an augmentation or layer, or a list
            or tuple of specs, augmentations and layers.

    Raises:
        ValueError: On an empty item, or "none" beside others.
    """
    if augment is None:
        return []
    if isinstance(augment, str):
        augment = options.split_list(augment)
    elif not isinstance(augment, list | tuple):
        augment = [augment]
    if list(augment) == [NONE]:
        return []
    if NONE in augment:
        raise ValueError(
            f"--augment={','.join(map(str, augment))} has none beside others; "
            "expected names separated by commas, such as crop,flip, or none "
            "alone."
        )
    return list(augment)


def resolve(text):
    """The `options.Spec` of one augmentation, nothing imported.

    Raises:
        ValueError: On an unknown name or option, or one that cannot be had,
            with the reason.
    """
    name = options.parse(text).name
    reason = _REFUSED.get(name.lower().replace("_", ""))
    if reason:
        raise ValueError(
            f"There is no augmentation {name!r}: it {reason}; expected some "
            f"of: {', '.join(sorted(data.AUGMENTATIONS))}."
        )
    return _NAMES.resolve(text)


def complete(augment):
    """A list with every option written, so that it says what holds.

    Args:
        augment: As in `listed`, no augmentation among them.

    Returns:
        Text as the flag takes it.
    """
    items = listed(augment)
    for item in items:
        resolve(item)
    return ",".join(map(_NAMES.complete, items)) or NONE
