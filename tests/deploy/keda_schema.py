"""What KEDA documents of the two kinds that deploy/kubernetes has of it, as JSON Schema.

Written by hand from KEDA's reference: no package carries its schemas without a client library around them.
"""

from __future__ import annotations

from typing import Any

__all__ = ["KEDA"]

TEXT = {"type": "string", "minLength": 1}
NUMBER_IN_TEXT = {"type": "string", "pattern": r"^\d+(\.\d+)?$"}  # KEDA reads all metadata as text
COUNT = {"type": "integer", "minimum": 0}


def _closed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _kind(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return _closed(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "keda.sh/v1alpha1"},
        kind={"const": name},
        metadata=_closed(
            ["name"], name=TEXT, namespace=TEXT, labels={"type": "object"}, annotations={"type": "object"}
        ),
        spec=spec,
    )


METRICS_API = _closed(
    ["url", "valueLocation", "targetValue"],
    url={"type": "string", "pattern": "^https?://"},
    valueLocation=TEXT,
    targetValue=NUMBER_IN_TEXT,
    activationTargetValue=NUMBER_IN_TEXT,
    format={"enum": ["json", "xml", "yaml", "prometheus"]},
    authMode={"enum": ["apiKey", "basic", "tls", "bearer"]},
    method={"enum": ["header", "query"]},
    keyParamName=TEXT,
    unsafeSsl={"enum": ["true", "false"]},
)

TRIGGER = _closed(
    ["type", "metadata"],
    type={"const": "metrics-api"},
    name={"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},  # a formula speaks of it
    metricType={"enum": ["AverageValue", "Value"]},
    useCachedMetrics={"type": "boolean"},
    metadata=METRICS_API,
    authenticationRef=_closed(
        ["name"], name=TEXT, kind={"enum": ["TriggerAuthentication", "ClusterTriggerAuthentication"]}
    ),
)

MODIFIERS = _closed(
    ["formula", "target"],
    formula=TEXT,
    target=NUMBER_IN_TEXT,
    activationTarget=NUMBER_IN_TEXT,
    metricType={"enum": ["AverageValue", "Value"]},
)

SCALED_OBJECT = _closed(
    ["scaleTargetRef", "triggers"],
    scaleTargetRef=_closed(["name"], name=TEXT, kind=TEXT, apiVersion=TEXT, envSourceContainerName=TEXT),
    pollingInterval=COUNT,
    cooldownPeriod=COUNT,
    initialCooldownPeriod=COUNT,
    idleReplicaCount=COUNT,
    minReplicaCount=COUNT,
    maxReplicaCount=COUNT,
    fallback=_closed(["failureThreshold", "replicas"], failureThreshold=COUNT, replicas=COUNT, behavior=TEXT),
    advanced=_closed(
        [],
        restoreToOriginalReplicaCount={"type": "boolean"},
        horizontalPodAutoscalerConfig={"type": "object"},
        scalingModifiers=MODIFIERS,
    ),
    triggers={"type": "array", "items": TRIGGER, "minItems": 1},
)

SECRETS = {
    "type": "array",
    "items": _closed(["parameter", "name", "key"], parameter=TEXT, name=TEXT, key=TEXT),
    "minItems": 1,
}

KEDA: dict[tuple[str, str], dict[str, Any]] = {
    ("keda.sh/v1alpha1", "ScaledObject"): _kind("ScaledObject", SCALED_OBJECT),
    ("keda.sh/v1alpha1", "TriggerAuthentication"): _kind(
        "TriggerAuthentication", _closed(["secretTargetRef"], secretTargetRef=SECRETS)
    ),
}
