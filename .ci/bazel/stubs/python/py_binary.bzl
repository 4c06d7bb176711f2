"""py_binary as Bazel 4 brings it."""

py_binary = native.py_binary
