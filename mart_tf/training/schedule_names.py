"""What a user may name as a schedule, checked without TensorFlow."""

from mart_tf import options
from mart_tf import training

_NAMES = options.Names(
    training.SCHEDULES, "schedule", training.SCHEDULE_RESERVED
)


def resolve(text):
    """The `options.Spec` of a schedule, nothing imported.

    A user's own, `package.module:Name`, is called with the learning rate, the
    steps of an epoch and the epochs, then its options.

    Raises:
        ValueError: On an unknown name or option, or a schedule of Keras: its
            second parameter would be the steps of an epoch, whatever it is.
    """
    name = options.parse(text).name
    if name.partition(".")[0] == "keras":
        raise ValueError(
            f"Schedule {text!r} is Keras's, which does not take the learning "
            "rate, the steps of an epoch and the epochs of a run; expected one "
            f"of: {', '.join(sorted(training.SCHEDULES))}, or a function of "
            "these three that returns it."
        )
    return _NAMES.resolve(text)


def complete(text):
    """A spec with every option written; raises as `resolve`."""
    resolve(text)
    return _NAMES.complete(text)
