"""py_test as Bazel 4 brings it."""

py_test = native.py_test
