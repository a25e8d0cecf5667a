"""deploy/kubernetes without a cluster: it is what Kubernetes, KEDA and Kustomize take, and what it names is there.

test_deployed_commands.py looks at its commands, test_manifests_run.py starts its processes.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs
import msgspec
import pytest
from compose_support import DEPLOY
from keda_schema import KEDA
from lightkube.models import apps_v1, core_v1, networking_v1, policy_v1
from manifest_support import GUIDE, KUBERNETES, MANIFESTS, containers, manifest, pods
from ruamel.yaml import YAML

from ropeway.config import load_settings
from ropeway.engines.redis.address import parse
from ropeway.serving.fleet import HEALTH_DEADLINE_S
from ropeway.serving.routes import ROUTES

PATHS = {route.path for route in ROUTES}

MODELS: dict[tuple[str, str], type[Any]] = {
    ("v1", "Namespace"): core_v1.Namespace,
    ("v1", "ConfigMap"): core_v1.ConfigMap,
    ("v1", "Service"): core_v1.Service,
    ("apps/v1", "Deployment"): apps_v1.Deployment,
    ("apps/v1", "StatefulSet"): apps_v1.StatefulSet,
    ("policy/v1", "PodDisruptionBudget"): policy_v1.PodDisruptionBudget,
    ("networking.k8s.io/v1", "NetworkPolicy"): networking_v1.NetworkPolicy,
}
"""What Kubernetes' own OpenAPI document says of each, as the package `lightkube-models` has it."""


@cache
def validator(version: str, kind: str) -> jsonschema_rs.Validator:
    """Of a manifest; members that the schema does not know are faults, which an API server would drop in silence."""
    if (version, kind) in KEDA:
        return jsonschema_rs.validator_for(KEDA[version, kind])
    schema = msgspec.json.schema(MODELS[version, kind])
    for each in schema["$defs"].values():
        if each.get("properties"):
            each["additionalProperties"] = False
    return jsonschema_rs.validator_for(schema)


def faults(one: dict[str, Any]) -> list[str]:
    return [error.message for error in validator(one["apiVersion"], one["kind"]).iter_errors(one)]


def title(one: dict[str, Any]) -> str:
    return f"{one['kind']} {one.get('metadata', {}).get('name', '')}"


OBJECTS = [one for one in MANIFESTS if one["kind"] != "Kustomization"]


@pytest.mark.parametrize("one", OBJECTS, ids=title)
def test_kubernetes_takes_it(one: dict[str, Any]) -> None:
    """It is valid by the schema of its kind, and is in the namespace that the files make."""
    assert faults(one) == []
    assert (
        one["metadata"].get("namespace", one["metadata"]["name"])
        == manifest("Namespace", "ropeway")["metadata"]["name"]
    )


def test_a_wrong_manifest_is_noticed() -> None:
    """The schemas are no formality: a name that is misspelt, a number that is text, and what is missing are faults."""
    text = (KUBERNETES / "worker.yaml").read_text()
    for right, wrong in [
        ("terminationGracePeriodSeconds: 60", "terminationGraceSeconds: 60"),
        ("terminationGracePeriodSeconds: 60", 'terminationGracePeriodSeconds: "60"'),
        ("- name: worker\n          image", "- image"),
        ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: always"),
    ]:
        assert right in text
        deployment = next(YAML(typ="safe", pure=True).load_all(text.replace(right, wrong)))
        assert len(faults(deployment)) > 0, wrong
    scaled = (KUBERNETES / "keda.yaml").read_text()
    for right, wrong in [
        ("valueLocation", "valuelocation"),
        ("minReplicaCount: 1", "minReplicas: 1"),
        ("authMode: bearer", "authMode: token"),
    ]:
        assert right in scaled
        assert any(faults(one) for one in YAML(typ="safe", pure=True).load_all(scaled.replace(right, wrong))), wrong


def test_kustomize_applies_all_but_what_needs_keda() -> None:
    """Each file is listed once; the image that it renames is one that is used, and the guide says the new name."""
    (whole,) = [one for one in MANIFESTS if one["kind"] == "Kustomization"]
    assert {*whole["resources"], "keda.yaml", "kustomization.yaml"} == {file.name for file in KUBERNETES.iterdir()}
    assert set(whole) == {"apiVersion", "kind", "resources", "images"}
    (image,) = whole["images"]
    assert image["name"] in {container["image"] for container in containers()}
    assert f"-t {image['newName']}:{image['newTag']}" in GUIDE


def test_pods_have_no_rights() -> None:
    """The rules of the profile `restricted`, which the namespace asks for; and a root that is read-only, resources, and
    no variables made up from the names of services."""
    assert manifest("Namespace", "ropeway")["metadata"]["labels"] == {
        "pod-security.kubernetes.io/enforce": "restricted"
    }
    for pod in pods():
        spec, security = pod["spec"], pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
        assert {"hostNetwork", "hostPID", "hostIPC"}.isdisjoint(spec)
    for container in containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} == set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


def test_our_pods_run_as_the_image_does() -> None:
    """The user is the one that the Dockerfile makes."""
    user = re.findall(r"^USER (\d+):(\d+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)[-1]
    for name in ("gateway", "worker"):
        security = manifest("Deployment", name)["spec"]["template"]["spec"]["securityContext"]
        assert (str(security["runAsUser"]), str(security["runAsGroup"])) == user


def test_what_is_selected_is_there() -> None:
    """Services, budgets, policies and the pods' own controllers select labels of a pod, and ports that it names."""
    for one in OBJECTS:
        selector = one.get("spec", {}).get("selector", {})
        if selector:
            (pod,) = labelled(selector.get("matchLabels", selector))
            named = [port for each in pod["spec"]["containers"] for port in each.get("ports", [])]
            ports = {port["name"]: port["containerPort"] for port in named}
            assert all(port["port"] == ports[port["targetPort"]] for port in one["spec"].get("ports", []))
    policy = manifest("NetworkPolicy", "valkey")["spec"]
    (allowed,) = policy["ingress"]
    assert len(labelled(policy["podSelector"]["matchLabels"])) == 1
    assert len(labelled(allowed["from"][0]["podSelector"]["matchLabels"])) == 2
    volumes = [volume for pod in pods() for volume in pod["spec"]["volumes"]]
    mounted = [volume["configMap"]["name"] for volume in volumes if "configMap" in volume]
    assert mounted == [manifest("ConfigMap", "valkey")["metadata"]["name"]]


def labelled(labels: dict[str, str]) -> list[dict[str, Any]]:
    """The pods that have these labels."""
    return [pod for pod in pods() if labels.items() <= pod["metadata"]["labels"].items()]


def test_probes_ask_what_the_gateway_answers() -> None:
    """Readiness is not liveness, both are routes, and an answer is awaited longer than by the gateway itself."""
    (gateway,) = manifest("Deployment", "gateway")["spec"]["template"]["spec"]["containers"]
    ready, live = gateway["readinessProbe"], gateway["livenessProbe"]
    assert (ready["httpGet"], live["httpGet"]) == (
        {"path": "/readyz", "port": "http"},
        {"path": "/livez", "port": "http"},
    )
    assert {"/readyz", "/livez"} <= PATHS
    assert ready["timeoutSeconds"] > HEALTH_DEADLINE_S


def test_secrets_are_those_that_the_guide_makes() -> None:
    """The password, the URL and KEDA's key stand in no file: they are referred to, and made by the guide's commands."""
    made = {
        (name, key)
        for name, rest in re.findall(r"create secret generic (\w+) (.*)", GUIDE)
        for key in re.findall(r"--from-literal=([\w-]+)=", rest)
    }
    variables = [each for container in containers() for each in container["env"] if "valueFrom" in each]
    asked = {
        (each["valueFrom"]["secretKeyRef"]["name"], each["valueFrom"]["secretKeyRef"]["key"]) for each in variables
    }
    asked |= {
        (ref["name"], ref["key"]) for ref in manifest("TriggerAuthentication", "stats")["spec"]["secretTargetRef"]
    }
    assert asked == made
    assert not [one for one in MANIFESTS if one["kind"] == "Secret"]


def test_every_variable_is_a_setting() -> None:
    """The settings' own loader takes the environment, and the URLs that the guide makes hold to class `disk`."""
    ours = [container for container in containers() if container["command"][0] == "ropeway"]
    assert len(ours) == 2
    for container in ours:
        names = [each["name"] for each in container["env"]]
        assert names == ["ROPEWAY_ENGINE", "ROPEWAY_LOG"]
    urls = re.findall(r"""(?:engine=|ROPEWAY_ENGINE=)["']?(valkeys?://[^"'\s]+)""", GUIDE)
    assert len(urls) == 3
    for url in urls:
        assert load_settings({}, environ={"ROPEWAY_ENGINE": url}, path=Path("/dev/null")).engine == url
        assert parse(url.replace("$PASSWORD", "s3cret")).durability == "disk"
    assert "valkey://:$PASSWORD@valkey:6379" in GUIDE
    assert manifest("Service", "valkey")["spec"]["ports"][0]["port"] == 6379


def test_keda_scales_the_workers_and_asks_the_gateway() -> None:
    """What it names is there, its formula is made of its triggers, and there is always a worker."""
    scaled = manifest("ScaledObject", "worker")["spec"]
    target = manifest("Deployment", scaled["scaleTargetRef"]["name"])
    assert "replicas" not in target["spec"], "an apply would undo what KEDA did"
    assert 1 <= scaled["minReplicaCount"] < scaled["maxReplicaCount"]
    assert set(re.findall(r"\w+", scaled["advanced"]["scalingModifiers"]["formula"])) == {
        trigger["name"] for trigger in scaled["triggers"]
    }
    for trigger in scaled["triggers"]:
        url = urlsplit(trigger["metadata"]["url"])
        service, namespace, *rest = str(url.hostname).split(".")
        assert rest == ["svc", "cluster", "local"]
        assert manifest("Service", service)["metadata"]["namespace"] == namespace
        assert url.port == manifest("Service", service)["spec"]["ports"][0]["port"]
        assert url.path in PATHS
        assert manifest("TriggerAuthentication", trigger["authenticationRef"]["name"])


def test_the_valkey_has_room() -> None:
    """It may not be killed for memory while it writes its file anew: its limit is twice what it may keep."""
    settings = dict(line.split(None, 1) for line in manifest("ConfigMap", "valkey")["data"]["valkey.conf"].splitlines())
    assert settings["maxmemory-policy"] == "noeviction"
    (container,) = manifest("StatefulSet", "valkey")["spec"]["template"]["spec"]["containers"]
    limit = container["resources"]["limits"]["memory"]
    assert (settings["maxmemory"], limit) == ("1gb", "2Gi")
    assert {"mountPath": settings["dir"], "name": "data"} in container["volumeMounts"]
