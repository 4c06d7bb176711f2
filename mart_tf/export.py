"""The export program: a run's classifier -> a SavedModel version.

mart-export --workdir=runs/digits_digits_cnn_mart
"""

import pathlib
import shlex

from absl import flags

from mart_tf import cli
from mart_tf.serving import versions
from mart_tf.training import workdir

SUMMARY = (
    "write a run's classifier as a SavedModel version for TF Serving, and "
    "prove that TensorFlow's C++ runtime gives its logits. Without flags: the "
    "newest run."
)

FLAGS = cli.flag_values()
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "The run to export; default: the newest under runs/.",
    flag_values=FLAGS,
)
_DIRECTORY = flags.DEFINE_string(
    "directory",
    None,
    "Where the versions 1, 2, ... lie; default: WORKDIR/export.",
    flag_values=FLAGS,
)
_CHECKPOINT = cli.checkpoint_flag(FLAGS)


def main(argv=None):
    """Runs the program."""
    cli.run("mart-export", SUMMARY, FLAGS, _main, argv)


def _main():
    path = _WORKDIR.value
    if path is None:
        path = workdir.newest()
        print(f"Exporting the newest run, {path}")
    run = workdir.describe(path)
    directory = versions.check(_DIRECTORY.value or pathlib.Path(path, "export"))

    # The flags are good: only now is TensorFlow imported.
    cli.import_tensorflow(FLAGS.verbosity)
    from mart_tf.serving import saved_model

    classifier, epoch, warnings = workdir.load_classifier(
        path, _CHECKPOINT.value
    )
    for warning in warnings:
        print(f"{warning} Exporting epoch {epoch}, the one before it.")
    version = saved_model.write_version(
        classifier,
        directory,
        outputs=run["outputs"],
    )
    print(
        f"Wrote {version.path}, the {_CHECKPOINT.value} weights of {path}, of "
        f"epoch {epoch}"
    )
    print("Signature serving_default:")
    for line in version.signature:
        print(f"  {line}")
    print(
        "Run on TensorFlow's C++ runtime, in a process without its Python: "
        f"logits within {version.difference:.1e} of Keras's, as a share of "
        "their largest magnitude."
    )
    print(
        "Serve it: tensorflow_model_server --rest_api_port=8501 "
        "--model_name=classifier "
        f"--model_base_path={shlex.quote(str(directory))}"
    )


if __name__ == "__main__":
    main()
