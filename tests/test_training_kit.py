"""The files that start a run on several machines.

Kubeflow's own Python types read the TFJob, Kubernetes's schemas its pods, and
mart-train's own flags what each container is started with. No cluster and no
container engine is there: neither was run.
"""

import json
import re
import subprocess
import sys

from kubeflow import training
from kubernetes import client
import kubernetes_validate
import programs
import pytest
import yaml

from mart_tf import train
from mart_tf.runs import cluster

KIT = programs.ROOT / "export" / "training"


def read(name):
    return yaml.safe_load((KIT / name).read_text())


def of_types(document):
    """What Kubeflow's types keep of a TFJob; what they do not know, goes."""
    api = client.ApiClient()
    known = vars(client.models) | vars(training.models)

    class Response:
        data = json.dumps(document)

    for name, kind in known.items():
        if name.startswith("KubeflowOrg"):
            setattr(client.models, name, kind)
    job = api.deserialize(Response, "KubeflowOrgV1TFJob")
    return api.sanitize_for_serialization(job)


class TestTFJob:
    def test_is_one(self):
        document = read("tfjob.yaml")
        assert of_types(document) == document
        damaged = json.loads(json.dumps(document))
        damaged["spec"]["tfReplicaSpecs"]["Worker"]["replica"] = 2
        assert of_types(damaged) == document

    @pytest.mark.parametrize("version", ["1.30", "1.36"])
    def test_its_pods_follow_the_schema(self, version):
        worker = read("tfjob.yaml")["spec"]["tfReplicaSpecs"]["Worker"]
        pod = {"apiVersion": "v1", "kind": "Pod", **worker["template"]}
        pod["metadata"]["name"] = "worker"
        kubernetes_validate.validate(pod, version, strict=True)

    def test_its_pods_keep_to_the_restricted_standard(self):
        # By hand, after Kubernetes's Pod Security Standards.
        worker = read("tfjob.yaml")["spec"]["tfReplicaSpecs"]["Worker"]
        [deployment, _] = yaml.safe_load_all(
            (KIT.parent / "kubernetes" / "deployment.yaml").read_text()
        )
        for template in (worker["template"], deployment["spec"]["template"]):
            pod = template["spec"]
            assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
            shared = pod["securityContext"]
            assert shared["runAsNonRoot"] and shared["runAsUser"] != 0
            assert shared["seccompProfile"] == {"type": "RuntimeDefault"}
            for volume in pod.get("volumes", []):
                assert set(volume) == {"name", "persistentVolumeClaim"}
            for container in pod["containers"]:
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                }

    def test_starts_again_whom_a_lost_worker_ended(self):
        # ExitCode: 1 to 127 are for good, 128 to 255 are tried again.
        worker = read("tfjob.yaml")["spec"]["tfReplicaSpecs"]["Worker"]
        assert worker["restartPolicy"] == "ExitCode"
        # The operator looks for a container of this name.
        [container] = worker["template"]["spec"]["containers"]
        assert container["name"] == "tensorflow"

    def test_what_it_runs(self, monkeypatch):
        worker = read("tfjob.yaml")["spec"]["tfReplicaSpecs"]["Worker"]
        [container] = worker["template"]["spec"]["containers"]
        mount = container["volumeMounts"][0]["mountPath"]
        hosts = [f"mart-train-worker-{i}.default.svc:2222" for i in range(2)]
        check_flags(container["args"], mount, {"worker": hosts}, monkeypatch)


class TestVertex:
    def test_is_a_custom_job(self):
        # By hand, after the public reference of CustomJobSpec.
        job = read("vertex.yaml")
        assert set(job) == {"workerPoolSpecs", "scheduling"}
        assert job["scheduling"] == {"restartJobOnWorkerRestart": True}
        chief, workers = job["workerPoolSpecs"]
        assert chief["replicaCount"] == 1
        for pool in (chief, workers):
            assert set(pool) == {
                "replicaCount",
                "machineSpec",
                "nfsMounts",
                "containerSpec",
            }
            assert set(pool["machineSpec"]) == {
                "machineType",
                "acceleratorType",
                "acceleratorCount",
            }
            [share] = pool["nfsMounts"]
            assert set(share) == {"server", "path", "mountPoint"}
            assert set(pool["containerSpec"]) == {"imageUri", "args"}

    def test_what_it_runs(self, monkeypatch):
        for pool in read("vertex.yaml")["workerPoolSpecs"]:
            check_flags(
                pool["containerSpec"]["args"],
                pool["nfsMounts"][0]["mountPoint"],
                {"chief": ["pool0:2222"], "worker": ["pool1:2222"]},
                monkeypatch,
            )


def check_flags(arguments, mount, hosts, monkeypatch):
    """That mart-train takes the flags, writes into the share, and has both."""
    monkeypatch.chdir(programs.ROOT)
    values = train.FLAGS
    try:
        train.cli.parse("mart-train", values, arguments)
        config = train.configuration().filled()
    finally:
        for flag in values:
            values[flag].unparse()
        values.unparse_flags()
    assert config.strategy == "multi_worker"
    assert config.workdir.startswith(mount + "/")
    assert config.data_dir.startswith(mount + "/")
    task = {"type": "worker", "index": 0}
    content = {"cluster": hosts, "task": task, "environment": "cloud"}
    monkeypatch.setenv("TF_CONFIG", json.dumps(content))
    assert len(cluster.of_environment(config.strategy).addresses) == 2


def test_what_a_user_must_change_is_marked():
    for name, placeholder, key in (
        ("tfjob.yaml", "REGISTRY", "image"),
        ("tfjob.yaml", "CLAIM", "claimName"),
        ("vertex.yaml", "REGISTRY", "imageUri"),
        ("vertex.yaml", "SERVER", "server"),
    ):
        text = (KIT / name).read_text()
        assert len(re.findall(rf"\b{placeholder}\b", text)) == 1
        assert re.search(rf"^# CHANGE: {key}\b", text, re.MULTILINE)


def test_the_image_is_of_what_is_there():
    text = (KIT / "Containerfile").read_text()
    copied = re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
    for name in " ".join(copied).split():
        assert (programs.ROOT / name).exists()
    assert re.search(r"^ENTRYPOINT \[\"mart-train\"\]$", text, re.MULTILINE)
    # The TensorFlow of the image is one that setup.py takes.
    tag = re.search(r"^ARG TAG=(\d+\.\d+)\.", text, re.MULTILINE).group(1)
    setup = (programs.ROOT / "setup.py").read_text()
    assert f'TENSORFLOW = ">={tag},<' in setup


class TestLauncher:
    def run(self, *arguments, cwd="."):
        return subprocess.run(
            [sys.executable, KIT / "local.py", *arguments],
            cwd=cwd,
            env=programs.environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def test_shows_each_process_and_its_status(self, tmp_path):
        done = self.run("3", "--epochs=none", cwd=tmp_path)
        assert done.returncode == 1
        lines = done.stdout.splitlines()
        assert sorted(line[:3] for line in lines) == ["[0]", "[1]", "[2]"]
        for line in lines:
            assert "mart-train: --epochs is 'none'" in line

    @pytest.mark.parametrize("given", [[], ["1"], ["two"], ["--epochs=1"]])
    def test_asks_for_a_number(self, given):
        done = self.run(*given)
        assert done.returncode == 1
        assert "how many processes" in done.stderr

    def test_refuses_too_many(self):
        assert "more than 64" in self.run("65").stderr
