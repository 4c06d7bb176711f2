"""Which processes train one run together: `TF_CONFIG`, checked.

TensorFlow reads the cluster out of this variable, and whoever starts the
processes writes it: Kubeflow's TFJob, a Vertex AI custom job, a shell.

    {"cluster": {"chief": ["host:port"], "worker": ["host:port", ...]},
     "task": {"type": "worker", "index": 0}}

Without a chief the first worker is it. Nothing here imports TensorFlow.
"""

import json
import os
import re
from typing import NamedTuple

_ADDRESS = re.compile(r"[^\s:/]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}", re.ASCII)
_KINDS = ("chief", "worker")
_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


class Members(NamedTuple):
    """The processes of a run, and which of them this one is.

    Attributes:
        addresses: Host and port of each, the chief first.
        index: The place of this process among them.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def is_chief(self):
        """Whether this process writes the workdir and tells its user."""
        return self.index == 0

    def describe(self):
        """This process, in a few words."""
        kind = "the chief" if self.is_chief else "a worker"
        return (
            f"process {self.index} of {len(self.addresses)}, {kind}, at "
            f"{self.addresses[self.index]}"
        )


def of_environment(strategy):
    """The `Members` that a `--strategy` asks for.

    Args:
        strategy: One of `runs.STRATEGIES`; "auto" takes the cluster where
            `TF_CONFIG` names one of more than one process.

    Returns:
        `Members`, at least two, or None.

    Raises:
        ValueError: If there should be a cluster, and `TF_CONFIG` tells none.
    """
    text = os.environ.get("TF_CONFIG", "")
    if strategy not in ("auto", "multi_worker"):
        return None
    if not text.strip():
        if strategy == "auto":
            return None
        raise ValueError(
            "--strategy=multi_worker reads the processes of a run out of the "
            "environment variable TF_CONFIG, and it is not set; expected "
            f"something like {_EXAMPLE}, or another --strategy."
        )
    members = _read(text)
    return members if len(members.addresses) > 1 else None


def _read(text):
    try:
        content = json.loads(text)
        groups, task = content["cluster"], content["task"]
        groups = {kind: list(groups[kind]) for kind in groups if groups[kind]}
        kind, index = str(task["type"]), int(task["index"])
    except (
        ArithmeticError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise _refused(text, "it has another form") from error
    for other in sorted({*groups, kind} - {*_KINDS, "evaluator"}):
        raise _refused(
            text,
            f"it names a {other!r}, and mart-train knows a chief and "
            "workers, which keep the weights themselves",
        )
    if kind == "evaluator":
        raise _refused(
            text,
            "this process is its evaluator, and mart-train validates on all "
            "workers: start no evaluator",
        )
    addresses = [a for name in _KINDS for a in groups.get(name, [])]
    for address in addresses:
        if not _is_address(address):
            raise _refused(text, f"{address!r} is no host:port")
    if len(set(addresses)) < len(addresses):
        raise _refused(text, "an address stands in it twice")
    if len(groups.get("chief", [])) > 1:
        raise _refused(text, "it names more than one chief")
    if not 0 <= index < len(groups.get(kind, [])):
        raise _refused(text, f"it has no {kind} {index}, which this process is")
    before = len(groups.get("chief", [])) if kind == "worker" else 0
    return Members(tuple(addresses), before + index)


def _is_address(address):
    return (
        isinstance(address, str)
        and bool(_ADDRESS.fullmatch(address))
        and 0 < int(address.rpartition(":")[2]) < 2**16
    )


def _refused(text, why):
    shown = text if len(text) <= 300 else text[:300] + "..."
    return ValueError(
        f"The environment variable TF_CONFIG is {shown!r}: {why}; expected "
        f"something like {_EXAMPLE}, or give --strategy=single."
    )
