"""A SavedModel version run by TensorFlow's C++ runtime, without its Python.

TF Serving's default runtime ends in the same LoadSavedModel and Session::Run.
They are called here through the C API of the installed wheel's libraries, with
ctypes: the `tensorflow` package is located and never imported.
"""

import contextlib
import ctypes
import functools
import importlib.util
import pathlib
import threading

import numpy as np

# TF_DataType in tensorflow/c/tf_datatype.h.
_NUMBERS = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9}
_TYPES = {number: name for name, number in _NUMBERS.items()}
_STRING = 7
# Size of a TF_TString in tensorflow/core/platform/ctstring_internal.h.
_STRING_SIZE = 24

# TF_Code in tensorflow/c/tf_status.h, in order.
_CODES = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
]


_pointer, _number, _size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
_text = ctypes.c_char_p
_many = [_pointer, _pointer, _number]
# Name, type of the result and of the arguments, from tensorflow/c/*.h.
_FUNCTIONS = (
    ("TF_NewStatus", _pointer, []),
    ("TF_DeleteStatus", None, [_pointer]),
    ("TF_GetCode", _number, [_pointer]),
    ("TF_Message", _text, [_pointer]),
    ("TF_NewGraph", _pointer, []),
    ("TF_DeleteGraph", None, [_pointer]),
    ("TF_GraphOperationByName", _pointer, [_pointer, _text]),
    ("TF_NewSessionOptions", _pointer, []),
    ("TF_DeleteSessionOptions", None, [_pointer]),
    (
        "TF_LoadSessionFromSavedModel",
        _pointer,
        [_pointer, _pointer, _text, _pointer, _number, *[_pointer] * 3],
    ),
    ("TF_DeleteSession", None, [_pointer, _pointer]),
    (
        "TF_SessionRun",
        None,
        [
            _pointer,
            _pointer,
            *_many,
            *_many,
            _pointer,
            _number,
            *[_pointer] * 2,
        ],
    ),
    ("TF_AllocateTensor", _pointer, [_number, _pointer, _number, _size]),
    ("TF_DeleteTensor", None, [_pointer]),
    ("TF_TensorData", _pointer, [_pointer]),
    ("TF_TensorType", _number, [_pointer]),
    ("TF_TensorByteSize", _size, [_pointer]),
    ("TF_NumDims", _number, [_pointer]),
    ("TF_Dim", ctypes.c_int64, [_pointer, _number]),
    ("TF_StringInit", None, [_pointer]),
    ("TF_StringCopy", None, [_pointer, _text, _size]),
    ("TF_StringGetDataPointer", _pointer, [_pointer]),
    ("TF_StringGetSize", _size, [_pointer]),
    ("TF_StringDealloc", None, [_pointer]),
)


class StatusError(RuntimeError):
    """A call that TensorFlow refused: `code` is the name of its status."""

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code = code


class Session:
    """A SavedModel version, loaded and ready to run; close it after use.

    Args:
        directory: The version's directory, such as "export/1".
        inputs: Maps each input's name to its tensor in the graph, such as
            `{"images": "serving_default_images:0"}`.
        outputs: The same for the outputs.

    Raises:
        StatusError: If TensorFlow cannot load the version.
        ValueError: If the wheel's libraries or a named tensor are missing.
    """

    def __init__(self, directory, inputs, outputs):
        self._library = _library()
        self._idle = threading.Condition()
        self._running = 0
        self._closed = False
        with contextlib.ExitStack() as owned:
            status = self._own(owned, "Status")
            self._graph = self._own(owned, "Graph")
            options = self._own(owned, "SessionOptions")
            self._session = self._library.TF_LoadSessionFromSavedModel(
                options,
                None,
                str(directory).encode(),
                (ctypes.c_char_p * 1)(b"serve"),
                1,
                self._graph,
                None,
                status,
            )
            self._check(status)
            owned.callback(
                self._library.TF_DeleteSession, self._session, status
            )
            self._inputs = self._find(inputs)
            self._outputs = self._find(outputs)
            self._owned = owned.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def close(self):
        """Gives back what the runtime holds, once no thread runs it."""
        with self._idle:
            self._closed = True
            self._idle.wait_for(lambda: not self._running)
        self._owned.close()

    def run(self, arrays):
        """Runs the graph once; several threads may at the same time.

        Args:
            arrays: Maps every input's name to a numpy array of type float32,
                float64, int32, int64 or uint8, or of `bytes` (type object or
                S), which are strings.

        Returns:
            A dict from each output's name to a numpy array; strings are
            `bytes` in an array of type object.

        Raises:
            StatusError: If TensorFlow refuses the arrays, or the run fails.
            ValueError: If the names are not those of the inputs, or the session
                is closed.
        """
        if set(arrays) != set(self._inputs):
            raise ValueError(
                f"Got arrays for {sorted(arrays)}; expected "
                f"{sorted(self._inputs)}."
            )
        delete = self._delete
        results = (ctypes.c_void_p * len(self._outputs))()
        with self._used(), contextlib.ExitStack() as owned:
            status = self._own(owned, "Status")
            values = (ctypes.c_void_p * len(arrays))()
            for place, name in enumerate(self._inputs):
                values[place] = self._tensor(arrays[name])
                owned.callback(delete, values[place])
            self._library.TF_SessionRun(
                self._session,
                None,
                (_Output * len(values))(*self._inputs.values()),
                values,
                len(values),
                (_Output * len(results))(*self._outputs.values()),
                results,
                len(results),
                None,
                0,
                None,
                status,
            )
            self._check(status)
            for result in results:
                owned.callback(delete, result)
            return {
                name: self._array(result)
                for name, result in zip(self._outputs, results, strict=True)
            }

    @contextlib.contextmanager
    def _used(self):
        """Keeps the session open while the body runs."""
        with self._idle:
            if self._closed:
                raise ValueError("The session is closed; load another one.")
            self._running += 1
        try:
            yield
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def _own(self, owned, kind):
        handle = getattr(self._library, f"TF_New{kind}")()
        owned.callback(getattr(self._library, f"TF_Delete{kind}"), handle)
        return handle

    def _check(self, status):
        code = self._library.TF_GetCode(status)
        if code:
            message = self._library.TF_Message(status).decode()
            raise StatusError(_CODES[code], message)

    def _find(self, names):
        tensors = {}
        for name, tensor in names.items():
            operation, _, index = tensor.partition(":")
            handle = self._library.TF_GraphOperationByName(
                self._graph, operation.encode()
            )
            if handle is None:
                raise ValueError(f"The graph has no tensor {tensor!r}.")
            tensors[name] = _Output(handle, int(index or 0))
        return tensors

    def _tensor(self, array):
        array = np.asarray(array, order="C")
        if array.dtype.kind in "OS":
            return self._strings(array)
        if array.dtype.name not in _NUMBERS:
            raise ValueError(
                f"Got an array of type {array.dtype}; expected bytes or one of "
                f"{', '.join(_NUMBERS)}."
            )
        tensor = self._allocate(
            _NUMBERS[array.dtype.name], array.shape, array.nbytes
        )
        data = self._library.TF_TensorData(tensor)
        ctypes.memmove(data, array.ctypes.data, array.nbytes)
        return tensor

    def _strings(self, array):
        values = array.ravel().tolist()
        if not all(isinstance(value, bytes) for value in values):
            raise ValueError("Got objects that are not bytes; expected bytes.")
        size = _STRING_SIZE * len(values)
        tensor = self._allocate(_STRING, array.shape, size)
        for place, value in zip(self._places(tensor), values, strict=True):
            self._library.TF_StringInit(place)
            self._library.TF_StringCopy(place, value, len(value))
        return tensor

    def _allocate(self, kind, shape, size):
        dimensions = (ctypes.c_int64 * len(shape))(*shape)
        return self._library.TF_AllocateTensor(
            kind, dimensions, len(shape), size
        )

    def _places(self, tensor):
        """Where the strings of a tensor lie."""
        first = self._library.TF_TensorData(tensor) or 0
        size = self._library.TF_TensorByteSize(tensor)
        return range(first, first + size, _STRING_SIZE)

    def _array(self, tensor):
        library = self._library
        shape = [
            library.TF_Dim(tensor, axis)
            for axis in range(library.TF_NumDims(tensor))
        ]
        if library.TF_TensorType(tensor) == _STRING:
            values = np.empty(len(self._places(tensor)), object)
            for index, place in enumerate(self._places(tensor)):
                values[index] = ctypes.string_at(
                    library.TF_StringGetDataPointer(place),
                    library.TF_StringGetSize(place),
                )
            return values.reshape(shape)
        content = ctypes.string_at(
            library.TF_TensorData(tensor), library.TF_TensorByteSize(tensor)
        )
        kind = _TYPES[library.TF_TensorType(tensor)]
        return np.frombuffer(content, kind).reshape(shape).copy()

    def _delete(self, tensor):
        # Of strings the tensor owns no more than their places.
        if self._library.TF_TensorType(tensor) == _STRING:
            for place in self._places(tensor):
                self._library.TF_StringDealloc(place)
        self._library.TF_DeleteTensor(tensor)


class _Output(ctypes.Structure):
    # TF_Output: one output of an operation of the graph.
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


@functools.cache
def _library():
    """The wheel's C API, its signatures declared."""
    package = importlib.util.find_spec("tensorflow")
    folders = package.submodule_search_locations if package else []
    # .so.2 on Linux, .2.dylib on macOS; the wheel for Windows has neither.
    files = [
        file
        for folder in folders
        for file in sorted(pathlib.Path(folder).glob("libtensorflow_cc.*"))
    ]
    if not files:
        raise ValueError(
            "TensorFlow's library libtensorflow_cc is not installed; expected "
            "it in the folder of the tensorflow wheel, as on Linux and macOS."
        )
    library = ctypes.CDLL(str(files[0]))
    for name, result, arguments in _FUNCTIONS:
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library
