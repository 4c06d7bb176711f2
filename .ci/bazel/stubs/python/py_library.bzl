"""py_library as Bazel 4 brings it."""

py_library = native.py_library
