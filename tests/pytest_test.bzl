"""A test file under pytest."""

load("@rules_python//python:py_test.bzl", "py_test")

_SETTINGS = "//:pyproject.toml"

def pytest_test(name, srcs, deps = [], data = [], **kwargs):
    """A py_test that runs pytest on one file, with the conftest beside it.

    Args:
        name: The name of the target.
        srcs: The test file alone.
        deps: What the file imports.
        data: What it reads, besides pytest's own settings.
        **kwargs: For py_test.
    """
    py_test(
        name = name,
        srcs = srcs + ["run_pytest.py"],
        args = ["tests/" + src for src in srcs],
        data = [file for file in data if file != _SETTINGS] + [_SETTINGS],
        # The packages have an __init__.py where they need one.
        legacy_create_init = 0,
        main = "run_pytest.py",
        # Two tests at a time on two cores: minutes for the longest.
        timeout = "long",
        deps = deps + [":conftest"],
        **kwargs
    )
