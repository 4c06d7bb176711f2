"""TF_CONFIG as those write it who start processes, and as they should not."""

import json
import math

import pytest

from mart_tf.runs import cluster
from mart_tf.runs import devices

# What Kubeflow's training operator gives the second worker of a TFJob.
TFJOB = {
    "cluster": {
        "worker": [
            "mart-worker-0.default.svc:2222",
            "mart-worker-1.default.svc:2222",
        ]
    },
    "task": {"type": "worker", "index": 1},
    "environment": "cloud",
}

# What a Vertex AI custom job gives its second worker pool.
VERTEX = {
    "cluster": {
        "chief": ["cmle-training-workerpool0-0a-0:2222"],
        "worker": ["cmle-training-workerpool1-0a-0:2222"],
    },
    "environment": "cloud",
    "task": {"type": "worker", "index": 0},
    "job": '{"python_module": ""}',
}


def found(monkeypatch, content, strategy="multi_worker"):
    text = content if isinstance(content, str) else json.dumps(content)
    monkeypatch.setenv("TF_CONFIG", text)
    return cluster.of_environment(strategy)


def test_of_a_tfjob(monkeypatch):
    found_cluster = found(monkeypatch, TFJOB)
    assert found_cluster.addresses == tuple(TFJOB["cluster"]["worker"])
    assert found_cluster.index == 1
    assert not found_cluster.is_chief


def test_the_first_worker_is_the_chief_where_there_is_none(monkeypatch):
    content = TFJOB | {"task": {"type": "worker", "index": 0}}
    assert found(monkeypatch, content).is_chief


def test_of_a_vertex_job(monkeypatch):
    worker = found(monkeypatch, VERTEX)
    assert worker.index == 1
    content = VERTEX | {"task": {"type": "chief", "index": 0}}
    assert found(monkeypatch, content).is_chief


def test_index_as_text(monkeypatch):
    content = TFJOB | {"task": {"type": "worker", "index": "1"}}
    assert found(monkeypatch, content).index == 1


@pytest.mark.parametrize("strategy", ["single", "mirrored"])
def test_is_not_read_where_one_process_is_asked_for(monkeypatch, strategy):
    assert found(monkeypatch, "{", strategy) is None


def test_auto_takes_it_where_there_are_several(monkeypatch):
    assert found(monkeypatch, TFJOB, "auto").index == 1
    alone = {
        "cluster": {"worker": ["host:1"]},
        "task": {"type": "worker", "index": 0},
    }
    assert found(monkeypatch, alone, "auto") is None
    assert found(monkeypatch, alone) is None
    # All devices of the one process there is.
    assert devices.strategy("multi_worker").num_replicas_in_sync == 2


def test_auto_without_it_is_one_process(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert cluster.of_environment("auto") is None
    with pytest.raises(ValueError, match="TF_CONFIG, and it is not set"):
        cluster.of_environment("multi_worker")


def of(task=("worker", 0), **groups):
    return {"cluster": groups, "task": {"type": task[0], "index": task[1]}}


TWO = ["a:1", "b:1"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "another form"),
        ("[]", "another form"),
        ("[" * 100_000, "another form"),
        ("null", "another form"),
        ({"cluster": {"worker": TWO}}, "another form"),
        ({"cluster": TWO, "task": {"type": "worker", "index": 0}}, "form"),
        (of(worker=7), "another form"),
        (of(("worker", None), worker=TWO), "another form"),
        (of(("worker", math.inf), worker=TWO), "another form"),
        (of((["worker"], 0), worker=TWO), "names a \"['worker']\""),
        (of(({}, 0), worker=TWO), "names a '{}'"),
        (of((None, 0), worker=TWO, ps=["c:1"]), "names a 'None'"),
        (of(worker=["a:1", "b:99999"]), "'b:99999' is no host:port"),
        (of(worker=["a:1", "b:0"]), "'b:0' is no host:port"),
        (of(worker=TWO, ps=["c:1"]), "names a 'ps'"),
        (of(("master", 0), master=["c:1"], worker=TWO), "names a 'master'"),
        (of(("evaluator", 0), worker=TWO, evaluator=["c:1"]), "evaluator"),
        (of(worker=["a:1", "b"]), "'b' is no host:port"),
        (of(worker=["a:1", 3]), "3 is no host:port"),
        (of(worker=["a:1", "a:1"]), "twice"),
        (of(chief=TWO, worker=["c:1"]), "more than one chief"),
        (of(("worker", 2), worker=TWO), "no worker 2"),
        (of(("worker", -1), worker=TWO), "no worker -1"),
        (of(("chief", 0), worker=TWO), "no chief 0"),
    ],
)
def test_what_names_no_cluster_is_refused(monkeypatch, content, sentence):
    with pytest.raises(ValueError, match="TF_CONFIG is") as error:
        found(monkeypatch, content)
    assert sentence in str(error.value)
    assert len(str(error.value)) < 700
