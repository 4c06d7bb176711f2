"""Methods of layers that are others for as long as a scope lasts."""

import contextlib
import threading

import tensorflow as tf

_LOCK = threading.Lock()
# Methods that some replica calls now, by layer and name, and by how many:
# replicas trace in threads that wait for each other inside a pass.
_CALLING = {}
_LOCAL = threading.local()


@contextlib.contextmanager
def replaced(layers, how, method="call", elsewhere=None):
    """A scope in which this thread's calls of some layers go elsewhere.

    A scope of the same method inside of another one takes its place. A call
    inside a `tf.function` of the network's own is the layer's: the trace is
    kept, and is used where the scope is over.

    Args:
        layers: Keras layers; one whose method somebody has replaced keeps it.
        how: Takes the layer, its own method, and what that is called with;
            returns what the call returns.
        method: Name of the method.
        elsewhere: Called with a layer that is called inside such a function,
            before its own method; to refuse it.
    """
    before = getattr(_LOCAL, method, None)
    own = []
    with _LOCK:
        for layer in layers:
            key = layer, method
            if key not in _CALLING and method in vars(layer):
                continue
            own.append(key)
            _CALLING[key] = _CALLING.get(key, 0) + 1
            if _CALLING[key] == 1:
                setattr(layer, method, _asking(layer, method))
    setattr(_LOCAL, method, (how, elsewhere, _graph()))
    try:
        yield
    finally:
        setattr(_LOCAL, method, before)
        with _LOCK:
            for key in own:
                _CALLING[key] -= 1
                if not _CALLING[key]:
                    del _CALLING[key]
                    # The method of its class is there again.
                    delattr(*key)


def _asking(layer, method):
    """A method that asks whether its thread is in a scope."""
    own = getattr(layer, method)

    def called(*args, **kwargs):
        scope = getattr(_LOCAL, method, None)
        if scope is None:
            return own(*args, **kwargs)
        how, elsewhere, graph = scope
        if _graph() is graph:
            return how(layer, own, *args, **kwargs)
        if elsewhere is not None:
            elsewhere(layer)
        return own(*args, **kwargs)

    return called


def _graph():
    return tf.compat.v1.get_default_graph()
