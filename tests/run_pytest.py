"""Runs pytest on a file for Bazel, which has a program for every test.

    run_pytest.py tests/test_losses.py

What a test forgot to depend on must not be found elsewhere: neither in the
real folder of this file, which Python puts first, nor by the finder of an
editable install of the checkout. (Processes that a test starts do have that.)
"""

import os
import sys

import pytest

_REAL = os.path.dirname(os.path.realpath(__file__))


def main():
    sys.path[:] = [p for p in sys.path if os.path.realpath(p) != _REAL]
    sys.meta_path[:] = [
        finder
        for finder in sys.meta_path
        if not getattr(finder, "__module__", "").startswith("__editable__")
    ]
    # Bazel lays out the files as links that nobody should write beside.
    options = ["-p", "no:cacheprovider"]
    if "XML_OUTPUT_FILE" in os.environ:
        options.append("--junitxml=" + os.environ["XML_OUTPUT_FILE"])
    if "TESTBRIDGE_TEST_ONLY" in os.environ:
        options += ["-k", os.environ["TESTBRIDGE_TEST_ONLY"]]
    sys.exit(pytest.main(options + sys.argv[1:]))


if __name__ == "__main__":
    main()
