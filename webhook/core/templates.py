"""Pod templates: where an object keeps one, and what in it makes a difference.

Found by shape: a ``spec`` (of a template or a Pod) with a list ``containers``. Custom resources that follow the
convention (``spec.template.spec.containers``) are covered without being named.
"""

from __future__ import annotations

from typing import Any

import msgspec

from webhook.core.request import ObjectHead

RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
JOB_LABELS = frozenset(
    {"batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name"}
)
_NULL = b"null"


class _TemplateSpec(msgspec.Struct, frozen=True, rename="camel"):
    template: msgspec.Raw = msgspec.Raw(_NULL)
    job_template: msgspec.Raw = msgspec.Raw(_NULL)
    containers: msgspec.Raw = msgspec.Raw(_NULL)


class _JobTemplate(msgspec.Struct, frozen=True):
    spec: _TemplateSpec = _TemplateSpec()


_spec_decoder = msgspec.json.Decoder(_TemplateSpec)
_job_decoder = msgspec.json.Decoder(_JobTemplate)
_any_decoder = msgspec.json.Decoder()


class PodTemplate:
    """One pod template, decoded when somebody looks into it.

    Args:
        raw: JSON of the template; for a Pod, of its ``spec``.
        bare: whether ``raw`` is a pod spec rather than a template with metadata.
    """

    def __init__(self, raw: bytes, *, bare: bool) -> None:
        self.raw = raw
        self._bare = bare
        self._value: dict[str, Any] | None = None

    def _decoded(self) -> dict[str, Any]:
        if self._value is None:
            value = _any_decoder.decode(self.raw)
            self._value = {"spec": value} if self._bare else value
        return self._value

    @property
    def spec(self) -> dict[str, Any]:
        """The pod spec."""
        spec = self._decoded().get("spec")
        return spec if isinstance(spec, dict) else {}

    @property
    def restarted_at(self) -> str:
        """Value of the annotation that ``kubectl rollout restart`` sets; empty when there is none."""
        return str(self._annotations().get(RESTARTED_AT, ""))

    def content(self) -> dict[str, Any]:
        """The template without the restart annotation: what decides whether other pods would run."""
        annotations = {key: value for key, value in self._annotations().items() if key != RESTARTED_AT}
        metadata = dict(self._decoded().get("metadata") or {})
        metadata.pop("annotations", None)
        metadata.pop("creationTimestamp", None)
        labels = metadata.get("labels")
        if isinstance(labels, dict):
            # The API server makes these up for each Job that is created.
            metadata["labels"] = {key: value for key, value in labels.items() if key not in JOB_LABELS}
        return {"metadata": metadata, "annotations": annotations, "spec": self.spec}

    def _annotations(self) -> dict[str, Any]:
        metadata = self._decoded().get("metadata")
        annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
        return annotations if isinstance(annotations, dict) else {}


def pod_template(head: ObjectHead) -> PodTemplate | None:
    """The pod template of an object: a workload's, a CronJob's, a PodTemplate's, or the Pod itself; else None."""
    if bytes(head.template) != _NULL:
        return _checked(PodTemplate(bytes(head.template), bare=False))
    if bytes(head.spec) == _NULL:
        return None
    try:
        spec = _spec_decoder.decode(head.spec)
        if bytes(spec.job_template) != _NULL:
            spec = _job_decoder.decode(spec.job_template).spec
    except msgspec.ValidationError:
        return None  # a kind whose spec is not an object, or uses these names for something else
    if bytes(spec.template) != _NULL:
        return _checked(PodTemplate(bytes(spec.template), bare=False))
    if bytes(spec.containers) != _NULL:
        return _checked(PodTemplate(bytes(head.spec), bare=True))
    return None


def images(template: PodTemplate) -> dict[str, str]:
    """Image by container name, init containers too."""
    return {str(one.get("name", "")): str(one.get("image", "")) for one in _containers(template.spec)}


def without_images(template: PodTemplate) -> dict[str, Any]:
    """The content with every container's image left out."""
    content = template.content()
    spec = dict(content["spec"])
    for kind in ("initContainers", "containers"):
        found = [one for one in spec.get(kind) or [] if isinstance(one, dict)]
        spec[kind] = [{key: value for key, value in one.items() if key != "image"} for one in found]
    return {**content, "spec": spec}


def host_access(template: PodTemplate) -> str:
    """How a pod would reach out of its box, for people (``hostPID, hostPath /``); empty when it does not.

    Such a pod is a shell on the node, which is what ``kubectl debug node/…`` makes.
    """
    spec = template.spec
    found = [field for field in ("hostPID", "hostIPC", "hostNetwork") if spec.get(field)]
    volumes = [one for one in spec.get("volumes") or [] if isinstance(one, dict)]
    paths = [one["hostPath"] for one in volumes if isinstance(one.get("hostPath"), dict)]
    found += [f"hostPath {path.get('path', '')}" for path in paths]
    found += [f"privileged {one.get('name', '')}" for one in _containers(spec) if _is_privileged(one)]
    return ", ".join(found)


def _checked(template: PodTemplate) -> PodTemplate | None:
    try:
        return template if isinstance(template.spec.get("containers"), list) else None
    except (AttributeError, msgspec.MsgspecError):
        return None


def _containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    found = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    return [container for container in found if isinstance(container, dict)]


def _is_privileged(container: dict[str, Any]) -> bool:
    return bool((container.get("securityContext") or {}).get("privileged"))
