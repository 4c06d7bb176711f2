"""Sums over replicas, so that an update on eight equals the update on one.

Every function runs inside a training or test step. Keras's optimizers sum
what the replicas give them: a term that belongs to the whole batch, not to a
replica, is therefore given as a share.
"""

import tensorflow as tf

from mart_tf import private


def global_count(images):
    """Number of examples in the batch, over all replicas, as float32."""
    count = tf.cast(tf.shape(images)[0], tf.float32)
    if is_alone():
        return count
    return tf.distribute.get_replica_context().all_reduce("sum", count)


def global_positions(images):
    """Each example's place in the global batch, int64 `[batch]`."""
    size = tf.shape(images)[0]
    places = tf.range(tf.cast(size, tf.int64))
    if is_alone():
        return places
    context = tf.distribute.get_replica_context()
    own = tf.one_hot(
        context.replica_id_in_sync_group, _replicas(), dtype=tf.float32
    )
    # The last batch may give replicas different sizes.
    sizes = context.all_reduce("sum", own * tf.cast(size, tf.float32))
    before = tf.reduce_sum(tf.cumsum(sizes, exclusive=True) * own)
    return places + tf.cast(before, tf.int64)


def written(table, rows, values):
    """A table with the values that all replicas have for some of its rows.

    Args:
        table: Float32 tensor `[n]`, the same on every replica.
        rows: Int64 tensor `[batch]`, this replica's rows.
        values: Float32 tensor `[batch]`; of a row that comes twice, the mean
            counts.

    Returns:
        A float32 tensor `[n]`, the same on every replica.
    """
    places, shape = rows[:, None], tf.shape(table, tf.int64)
    times = tf.scatter_nd(places, tf.ones_like(values), shape)
    total = tf.scatter_nd(places, values, shape)
    if not is_alone():
        context = tf.distribute.get_replica_context()
        times, total = context.all_reduce("sum", [times, total])
    return tf.where(times > 0.0, tf.math.divide_no_nan(total, times), table)


def anywhere(flags):
    """Where a flag is set on any replica, of a boolean tensor's."""
    if is_alone():
        return flags
    context = tf.distribute.get_replica_context()
    return context.all_reduce("sum", tf.cast(flags, tf.float32)) > 0.0


def put_back(variables, values, wanted):
    """Gives variables the values that they had, if that is wanted.

    Args:
        variables: Keras variables, of any kind that a strategy makes.
        values: Of each this replica's value, a tensor.
        wanted: A boolean scalar, the same on every replica.
    """

    def everywhere(strategy, values, wanted):
        for variable, value in zip(variables, values, strict=True):
            strategy.extended.update(
                variable.value, _put_back, (value, wanted), group=False
            )

    # In a replica only some kinds of variables can be assigned.
    context = tf.distribute.get_replica_context()
    context.merge_call(everywhere, (values, wanted))


def _put_back(variable, value, wanted):
    return variable.assign(tf.where(wanted, value, variable))


def share(value):
    """One replica's part of a value that the replicas' sum must equal."""
    return value / _replicas()


def summed(gradients):
    """The sums over the replicas; None stays None."""
    whole = list(gradients)
    if is_alone():
        return whole
    places = [i for i, g in enumerate(gradients) if g is not None]
    sums = tf.distribute.get_replica_context().all_reduce(
        "sum", [gradients[i] for i in places]
    )
    for i, gradient in zip(places, sums, strict=True):
        whole[i] = gradient
    return whole


def decayed(gradients, variables, weight_decay):
    """Coupled weight decay: `weight_decay * w` joins the reduced gradient."""
    if not weight_decay:
        return gradients
    return [
        gradient
        if gradient is None
        else gradient + share(weight_decay * variable.value)
        for gradient, variable in zip(gradients, variables, strict=True)
    ]


def clip_globally(gradients, optimizer):
    """Clips as the optimizer would, but after the reduction.

    A Keras optimizer clips each replica's own gradient before the sum. Here
    the sum is clipped and shared out again; the optimizer's own clipping then
    finds nothing to do. On one replica it clips.
    """
    norm = optimizer.clipnorm
    global_norm = optimizer.global_clipnorm
    value = optimizer.clipvalue
    if not (norm or global_norm or value):
        return gradients
    # Of an embedding they come in slices, of one row several: their norm, which
    # TensorFlow would take, is not the gradient's.
    gradients = [g if g is None else tf.convert_to_tensor(g) for g in gradients]
    if value:
        # Else an infinite one would become a small one.
        gradients = [g if g is None else _nan_if_infinite(g) for g in gradients]
    if is_alone():
        return gradients
    whole = summed(gradients)
    places = [i for i, g in enumerate(whole) if g is not None]
    present = [whole[i] for i in places]
    if norm:
        clipped = [tf.clip_by_norm(g, norm) for g in present]
    elif global_norm:
        clipped, _ = tf.clip_by_global_norm(present, global_norm)
    else:
        clipped = [tf.clip_by_value(g, -value, value) for g in present]
    for i, gradient in zip(places, clipped, strict=True):
        whole[i] = share(gradient)
    return whole


def _nan_if_infinite(gradient):
    return tf.where(tf.math.is_finite(gradient), gradient, float("nan"))


def as_keras_reduces(log):
    """A scalar in the shape that Keras can take the replicas' mean of.

    Over several processes it takes one along the first axis (see
    tensorflow#72388), and there `[1]` becomes a scalar.
    """
    if private.has_several_workers(tf.distribute.get_strategy()):
        return tf.reshape(log, [1])
    return log


def is_alone():
    """Whether one replica trains, not several."""
    return _replicas() == 1


def _replicas():
    return tf.distribute.get_strategy().num_replicas_in_sync
