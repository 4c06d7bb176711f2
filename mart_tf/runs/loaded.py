"""A run that is there, opened: what it was told, what it reached, its network.

Opening one reads small files; TensorFlow is imported when the classifier or
the threat model is asked for.
"""

import functools
import os
import pathlib
import warnings

from mart_tf import choices
from mart_tf import options
from mart_tf import places
from mart_tf.reports import saved
from mart_tf.runs import consent
from mart_tf.runs import history
from mart_tf.runs import record
from mart_tf.runs import workdir


class Run:
    """A run on disk, which may still be running: each look reads it anew.

    Args:
        workdir: Where it lies.
        checkpoint: Which weights `classifier` has.
        allow_code: Whether code that the run names may be imported.

    Attributes:
        workdir: A `pathlib.Path`.
        config: Its `Config`, every setting of mart-train by its name.
        checkpoint: As given.

    Raises:
        ValueError: As `load_run`.
    """

    def __init__(self, workdir, checkpoint="best", allow_code=False):
        path = places.expanded("workdir", os.fspath(workdir))
        if checkpoint not in choices.CHECKPOINTS:
            raise options.unknown(
                "checkpoint", str(checkpoint), choices.CHECKPOINTS
            )
        self._record = record.read(path)
        self._allow_code = allow_code
        self.workdir = pathlib.Path(path)
        self.config = self._record.config
        self.checkpoint = checkpoint

    @functools.cached_property
    def classifier(self):
        """The network that is evaluated and served, a plain Keras model.

        In float32, with the weights of the run's best epoch, or as
        `checkpoint` says; their average where the run kept one. It returns
        what `config.outputs` says of images in the pixel range of `threat`.

        Raises:
            ValueError: If there is no checkpoint yet, none is sound, or the
                network is code of the run's own that was not allowed.
        """
        # Before anything of the run is imported. Its data is not needed.
        consent.check(self._record, self._allow_code, given=["dataset"])
        model, _, damaged = workdir.load_classifier(
            str(self.workdir), self.checkpoint
        )
        for sentence in damaged:
            warnings.warn(sentence, stacklevel=2)
        return model

    @property
    def history(self):
        """The finished epochs: a list for each column of metrics.csv.

        Numbers from 0 to 1 are shares; NaN stands where an epoch has no value.
        `history["best"]` is 1 in each epoch that was the best so far.

        Raises:
            ValueError: If the file is damaged.
        """
        return history.columns(self.workdir)

    @functools.cached_property
    def threat(self):
        """The `ThreatModel` that it was trained in."""
        from mart_tf.runs import described

        return described.threat(self.config)

    @property
    def report(self):
        """What mart-evaluate found, the content of report.json; or None.

        Raises:
            ValueError: If the report is damaged.
        """
        folder = self.workdir / "evaluation"
        if not (folder / saved.FILE).exists():
            return None
        return saved.load(folder)

    def __repr__(self):
        return f"Run({str(self.workdir)!r})"


def load_run(workdir, checkpoint="best", *, allow_code=False):
    """Opens a run that mart-train or `train_run` has written.

        classifier = mart_tf.load_run("runs/small").classifier

    Args:
        workdir: Where the run lies, a path.
        checkpoint: Which weights `classifier` has: "best" on the validation
            split (without one the last) or "last", the average of the weights
            where one was kept; "best_raw" or "last_raw", the weights
            themselves.
        allow_code: Whether code that the run names, its network's module, may
            be imported and run: say so of a run that you know.

    Returns:
        A `Run`.

    Raises:
        ValueError: If there is no run, it is damaged, or `checkpoint` is
            another.
    """
    return Run(workdir, checkpoint, allow_code)
