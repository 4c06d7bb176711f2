"""`python -m mart_tf`: what there is, and where it lies."""

import sys

from mart_tf import entry
from mart_tf import environment
from mart_tf import resources
from mart_tf import screen

_FOLDERS = (
    ("Recipes", "flags", "for --flagfile=NAME"),
    ("Docs", "docs", "the reasons, and what was measured"),
    ("Examples", "examples", "scripts and a notebook to start from"),
    ("Serving kit", "export", "server files and clients"),
)


def main():
    """Prints the programs, where recipes and docs lie, and the versions.

    It takes no arguments; one that it is given is refused with status 1.
    """
    if sys.argv[1:] not in ([], ["--help"], ["--version"]):
        screen.complain(
            f"python -m mart_tf takes no {sys.argv[1]}; expected a program, "
            f"such as mart-train {sys.argv[1]}."
        )
        sys.exit(1)
    if sys.argv[1:] == ["--version"]:
        print(environment.spelled())
        return
    print("Adversarial training for Keras: make a classifier robust, prove it,")
    print("and serve it. --help of each program lists its flags.\n")
    for name, purpose in entry.PROGRAMS.items():
        print(f"  mart-{name:10}{purpose}")
    print("\nIn Python: import mart_tf; help(mart_tf.AdversarialClassifier)")
    place = resources.folder()
    for name, folder, purpose in _FOLDERS:
        if place is not None and (place / folder).is_dir():
            print(f"{name}, {purpose}: {place / folder}")
    print(f"Versions: {environment.spelled()}")


if __name__ == "__main__":
    main()
