"""Methods of layers that are others for as long as a scope lasts."""

import contextlib
import threading

_LOCK = threading.Lock()
# Methods that some replica calls now, by layer and name, and by how many:
# replicas trace in threads that wait for each other inside a pass.
_CALLING = {}
_LOCAL = threading.local()


@contextlib.contextmanager
def replaced(layers, how, method="call"):
    """A scope in which this thread's calls of some layers go elsewhere.

    A scope of the same method inside of another one takes its place.

    Args:
        layers: Keras layers.
        how: Takes the layer, its own method, and what that is called with;
            returns what the call returns.
        method: Name of the method.
    """
    before = getattr(_LOCAL, method, None)
    with _LOCK:
        for layer in layers:
            key = layer, method
            _CALLING[key] = _CALLING.get(key, 0) + 1
            if _CALLING[key] == 1:
                setattr(layer, method, _asking(layer, method))
    setattr(_LOCAL, method, how)
    try:
        yield
    finally:
        setattr(_LOCAL, method, before)
        with _LOCK:
            for layer in layers:
                key = layer, method
                _CALLING[key] -= 1
                if not _CALLING[key]:
                    del _CALLING[key]
                    # The method of its class is there again.
                    delattr(layer, method)


def _asking(layer, method):
    """A method that asks whether its thread is in a scope."""
    own = getattr(layer, method)

    def called(*args, **kwargs):
        how = getattr(_LOCAL, method, None)
        if how is None:
            return own(*args, **kwargs)
        return how(layer, own, *args, **kwargs)

    return called
