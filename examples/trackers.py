"""Epochs of a run in Weights & Biases or MLflow, as callbacks by name.

    cd examples
    mart-train --callbacks=trackers:wandb:project=robust --workdir=runs/mine
    mart-train --callbacks=trackers:mlflow:experiment=robust --workdir=runs/mine

Each needs its package: `pip install 'mart-tf[wandb]'` or `'mart-tf[mlflow]'`.
Where the epochs go, their own variables say: WANDB_MODE=offline, or
MLFLOW_TRACKING_URI=sqlite:///mlflow.db, keeps them on this machine.
"""

import keras


class WandB(keras.callbacks.Callback):
    """What Keras logs of each epoch, into a run of Weights & Biases."""

    def __init__(self, project):
        super().__init__()
        self.project = project
        self.run = None

    def on_train_begin(self, logs=None):
        import wandb

        self.run = wandb.init(project=self.project)

    def on_epoch_end(self, epoch, logs=None):
        self.run.log(plain(logs), step=epoch + 1)

    def on_train_end(self, logs=None):
        self.run.finish()


class MLflow(keras.callbacks.Callback):
    """The same into a run of MLflow."""

    def __init__(self, experiment):
        super().__init__()
        self.experiment = experiment

    def on_train_begin(self, logs=None):
        import mlflow

        mlflow.set_experiment(self.experiment)
        mlflow.start_run()

    def on_epoch_end(self, epoch, logs=None):
        import mlflow

        mlflow.log_metrics(plain(logs), step=epoch + 1)

    def on_train_end(self, logs=None):
        import mlflow

        mlflow.end_run()


def wandb(project: str = "mart_tf"):
    return WandB(project)


def mlflow(experiment: str = "mart_tf"):
    return MLflow(experiment)


def plain(logs):
    return {name: float(value) for name, value in (logs or {}).items()}
