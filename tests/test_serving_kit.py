"""The files of the serving kit against the schemas of who reads them.

Not checked, because nothing that can be installed here bundles it: that the
server image starts with them, the schema of KServe's resource, and the syntax
of the Containerfile. What these say of each other is checked by hand.
"""

import copy
import re
import shlex
import subprocess
import sys
import types

from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory
from google.protobuf import text_format
from google.protobuf import wrappers_pb2
import kubernetes_validate
import loopback
import misbehaving
import pytest
from tensorflow_serving.config import model_server_config_pb2
import yaml

KIT = loopback.KIT
_FIELD = descriptor_pb2.FieldDescriptorProto
_INT64_VALUE = ".google.protobuf.Int64Value"

# TF Serving's public messages that tensorflow-serving-api leaves out: name,
# number, type and label of their fields, from session_bundle_config.proto and
# monitoring_config.proto.
_MESSAGES = {
    "BatchingParameters": [
        ("max_batch_size", 1, _INT64_VALUE),
        ("batch_timeout_micros", 2, _INT64_VALUE),
        ("max_enqueued_batches", 3, _INT64_VALUE),
        ("num_batch_threads", 4, _INT64_VALUE),
    ],
    "PrometheusConfig": [
        ("enable", 1, _FIELD.TYPE_BOOL),
        ("path", 2, _FIELD.TYPE_STRING),
    ],
    "MonitoringConfig": [
        ("prometheus_config", 1, ".tensorflow.serving.PrometheusConfig"),
    ],
}


@pytest.fixture(scope="module")
def messages():
    """Classes for `_MESSAGES`, by name."""
    file = descriptor_pb2.FileDescriptorProto(
        name="kit.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            added = message.field.add(
                name=field, number=number, label=_FIELD.LABEL_OPTIONAL
            )
            if isinstance(kind, str):
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, kind
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"tensorflow.serving.{name}")
        )
        for name in _MESSAGES
    }


def _text(name):
    return (KIT / name).read_text(encoding="utf-8")


def _yaml(name):
    return list(yaml.safe_load_all(_text(name)))


class TestServerConfigurations:
    def test_models(self):
        config = text_format.Parse(
            _text("models.config"), model_server_config_pb2.ModelServerConfig()
        )
        [model] = config.model_config_list.config
        assert model.name == "classifier"
        assert model.base_path == "/models/classifier"
        assert model.model_platform == "tensorflow"
        served = model.model_version_policy.specific.versions
        assert list(served) == [1]
        # A label may only name a version that is served.
        assert dict(model.version_labels) == {"stable": 1}

    def test_batching(self, messages):
        config = text_format.Parse(
            _text("batching.config"), messages["BatchingParameters"]()
        )
        assert config.max_batch_size.value == 32
        assert config.num_batch_threads.value >= 1
        assert config.max_enqueued_batches.value > 0
        assert config.batch_timeout_micros.value > 0

    def test_monitoring(self, messages):
        config = text_format.Parse(
            _text("monitoring.config"), messages["MonitoringConfig"]()
        )
        assert config.prometheus_config.enable
        [deployment, _] = _yaml("kubernetes/deployment.yaml")
        annotations = deployment["spec"]["template"]["metadata"]["annotations"]
        assert (
            annotations["prometheus.io/path"] == config.prometheus_config.path
        )

    def test_negative_control_a_misspelt_field(self, messages):
        for name, message in (
            ("models.config", model_server_config_pb2.ModelServerConfig),
            ("batching.config", messages["BatchingParameters"]),
            ("monitoring.config", messages["MonitoringConfig"]),
        ):
            field = re.search(r"^ *(\w+)(:| \{)", _text(name), re.MULTILINE)[1]
            damaged = _text(name).replace(field, f"{field}s")
            with pytest.raises(text_format.ParseError, match="no field named"):
                text_format.Parse(damaged, message())


class TestCompose:
    def _checked(self, path):
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "check_jsonschema",
                "--builtin-schema=vendor.compose-spec",
                str(path),
            ],
            capture_output=True,
            text=True,
            check=False,
        )

    def test_follows_the_compose_specification(self, tmp_path):
        done = self._checked(KIT / "compose.yaml")
        assert done.returncode == 0, done.stdout
        damaged = tmp_path / "compose.yaml"
        damaged.write_text(_text("compose.yaml").replace("image:", "images:"))
        assert self._checked(damaged).returncode == 1

    def test_what_a_user_sets(self):
        text = _text("compose.yaml")
        [content] = _yaml("compose.yaml")
        named = set(re.findall(r"^# ([A-Z_]+)  ", text, re.MULTILINE))
        # `$$` is a dollar for the container.
        used = re.findall(r"(?<!\$)\$\{([A-Z_]+)(:[-?])", str(content))
        assert {name for name, _ in used} == named
        assert {name for name, kind in used if kind == ":?"} == {"MODEL_DIR"}
        assert not re.search(r"(?<!\$)\$[^${]", str(content))

    def test_the_model_lies_where_the_image_looks(self):
        [content] = _yaml("compose.yaml")
        server = content["services"]["server"]
        model, kit = server["volumes"]
        name = server["environment"]["MODEL_NAME"]
        assert model["target"] == f"/models/{name}"
        assert kit["source"] == "."
        for flag in shlex.split(server["command"]):
            _, _, path = flag.partition("=/kit/")
            assert (KIT / path).exists()

    def test_the_health_check_as_bash_runs_it(self):
        [content] = _yaml("compose.yaml")
        test = content["services"]["server"]["healthcheck"]["test"]
        assert test[:3] == ["CMD", "bash", "-c"]
        script = test[3].replace("$$", "$")
        model = types.SimpleNamespace(name="classifier")
        with loopback.serve(model) as (url, _):
            port = url.rpartition(":")[2]
            for name, status in (("classifier", 0), ("other", 1)):
                done = subprocess.run(
                    ["bash", "-c", script.replace("8501", port)],
                    env={"MODEL_NAME": name, "PATH": "/usr/bin:/bin"},
                    check=False,
                    timeout=10,
                )
                assert done.returncode == status


class TestKubernetes:
    @pytest.fixture
    def documents(self):
        return _yaml("kubernetes/deployment.yaml")

    @pytest.mark.parametrize("version", ["1.30", "1.37"])
    def test_follow_the_schemas_of_kubernetes(self, documents, version):
        for document in documents:
            kubernetes_validate.validate(document, version, strict=True)
            damaged = copy.deepcopy(document)
            damaged["spec"]["selectors"] = damaged["spec"].pop("selector")
            with pytest.raises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(damaged, version, strict=True)

    def test_the_parts_find_each_other(self, documents):
        deployment, service = documents
        template = deployment["spec"]["template"]
        labels = template["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels
        assert service["spec"]["selector"] == labels
        [container] = template["spec"]["containers"]
        ports = {p["name"]: p["containerPort"] for p in container["ports"]}
        assert ports == {"grpc": 8500, "rest": 8501}
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]

    def test_the_probes_ask_for_the_model_of_the_container(self, documents):
        [container] = documents[0]["spec"]["template"]["spec"]["containers"]
        [name] = re.findall(
            r"^ARG MODEL_NAME=(.+)$", _text("Containerfile"), re.MULTILINE
        )
        for probe in ("startupProbe", "readinessProbe"):
            assert container[probe]["httpGet"] == {
                "path": f"/v1/models/{name}",
                "port": "rest",
            }
        assert container["livenessProbe"]["tcpSocket"] == {"port": "grpc"}

    def test_inference_service(self):
        # By hand: no package that can stand beside TensorFlow's protobuf
        # bundles KServe's schema.
        [service] = _yaml("kubernetes/inference_service.yaml")
        assert service["apiVersion"] == "serving.kserve.io/v1beta1"
        assert service["kind"] == "InferenceService"
        assert set(service) == {"apiVersion", "kind", "metadata", "spec"}
        assert set(service["spec"]) == {"predictor"}
        model = service["spec"]["predictor"]["model"]
        assert model["modelFormat"] == {"name": "tensorflow", "version": "2"}
        # The folder above the versions, as TF Serving's base path.
        assert not model["storageUri"].rstrip("/").split("/")[-1].isdigit()


def test_what_a_user_must_change_is_marked():
    """Placeholders are in capitals, and a line that says CHANGE names each."""
    for name, placeholder, key in (
        ("kubernetes/deployment.yaml", "REGISTRY", "image"),
        ("kubernetes/inference_service.yaml", "BUCKET", "storageUri"),
    ):
        assert _text(name).count(placeholder) == 1
        assert re.search(rf"^# CHANGE: {key}\b", _text(name), re.MULTILINE)


def test_the_container_copies_what_is_there():
    copied = re.findall(r"^COPY (.+) \S+$", _text("Containerfile"), re.M)
    files = [file for line in copied for file in line.split()]
    assert files[0] == "${MODEL_DIR}"
    for file in files[1:]:
        assert (KIT.parent / file).is_file()


class TestReadme:
    def test_names_every_file(self):
        # A user gets neither BUILD, which is Bazel's, nor a cache.
        passed_over = {"BUILD", "README.md", "__pycache__"}
        for path in KIT.rglob("*"):
            name = path.relative_to(KIT)
            if path.is_file() and not passed_over & set(name.parts):
                assert f"`{name.as_posix()}`" in _text("README.md"), name

    def test_its_commands_have_the_flags_that_it_uses(self):
        commands = re.findall(
            r"^python export/(\w+)\.py (.+)$", _text("README.md"), re.MULTILINE
        )
        assert {program for program, _ in commands} == {
            "rest_client",
            "grpc_client",
            "load",
        }
        for program, arguments in commands:
            client = loopback.kit_module(program)
            status, described = misbehaving.call(client, "--help")
            assert status == 0
            for flag in re.findall(r"--\w+", arguments):
                assert f"{flag} " in "\n".join(described), flag
