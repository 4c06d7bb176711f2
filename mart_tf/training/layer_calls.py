"""Calls of layers that are answered otherwise for as long as a scope lasts."""

import contextlib
import threading

_LOCK = threading.Lock()
# Layers that some replica calls now, and by how many: replicas trace in threads
# that wait for each other inside a pass.
_CALLING = {}
_LOCAL = threading.local()


@contextlib.contextmanager
def replaced(layers, how):
    """A scope in which this thread's calls of some layers go elsewhere.

    A scope inside of another one takes its place.

    Args:
        layers: Keras layers whose `call` is that of a batch norm.
        how: Takes the layer, its own `call`, and the inputs, `training` and
            `mask` of a call; returns the outputs.
    """
    before = getattr(_LOCAL, "how", None)
    with _LOCK:
        for layer in layers:
            _CALLING[layer] = _CALLING.get(layer, 0) + 1
            if _CALLING[layer] == 1:
                layer.call = _asking(layer, layer.call)
    _LOCAL.how = how
    try:
        yield
    finally:
        _LOCAL.how = before
        with _LOCK:
            for layer in layers:
                _CALLING[layer] -= 1
                if not _CALLING[layer]:
                    del _CALLING[layer]
                    # The method of its class is there again.
                    del layer.call


def _asking(layer, call):
    """A `call` that asks whether its thread is in a scope."""

    def called(inputs, training=None, mask=None):
        how = getattr(_LOCAL, "how", None)
        if how is None:
            return call(inputs, training=training, mask=mask)
        return how(layer, call, inputs, training, mask)

    return called
