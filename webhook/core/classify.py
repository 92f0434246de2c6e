"""From a request to the effects it has: which operation classes, on which target, with which change.

It reads the review and the tables of ``catalog``, and does not care who asks. It goes by the shape of objects, not by a list of kinds: whatever
has ``spec.replicas`` is scaled, whatever has a pod template is deployed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from webhook.core import cascades, kinds
from webhook.core.catalog import BUILT_IN, Catalog, Deputy
from webhook.core.metadata import AGGREGATE_PREFIX, POD_SECURITY_PREFIX, changed_keys, changed_labels, deadly_change
from webhook.core.operation import ACCESS, DELETE, DEPLOY, DRAIN, EXEC, RESTART, SCALE, Action, Target, digest
from webhook.core.request import AdmissionRequest, ObjectHead
from webhook.core.templates import PodTemplate, host_access, images, pod_template, without_images

EXEC_SUBRESOURCES = frozenset({"exec", "attach", "portforward", "proxy"})
PROXY_SCHEMES = frozenset({"http", "https", ""})
UPDATE_OF_MAIN_RESOURCE = ""
# Where the review's object is the target itself, or (a Scale) has its uid.
SUBRESOURCES_OF_THE_OBJECT = frozenset({"", "ephemeralcontainers", "finalize", "resize", "scale", "status"})
CASCADES = frozenset({("", "namespaces")})
_ALSO_DELETED = {("", "nodes"): (DRAIN,)}  # a node that is deleted takes its pods with it
_JSON_NULL = b"null"


class _Replicas(msgspec.Struct):
    replicas: int | None = None


_replicas_decoder = msgspec.json.Decoder(_Replicas)


def classify(request: AdmissionRequest, catalog: Catalog = BUILT_IN) -> tuple[Action, ...]:
    """All effects of one request; empty when it has none that we know.

    Args:
        catalog: the tables that operators can extend.

    Raises:
        ReviewError: an object in the review cannot be read.
    """
    classifier = _BY_OPERATION.get(request.operation)
    if classifier is None:
        return ()
    actions = classifier(request, catalog)
    group, resource = request.resource.group, request.resource.resource
    changes = kinds.BY_KIND.get((group, resource))
    deputies = catalog.deputies(group, resource)
    takes_along = (group, resource) in cascades.KINDS
    if changes is not None or deputies:
        actions = (*actions, *_changes_of_kind(request, changes or ()), *_orders(request, deputies))
    if len(actions) > 1:
        actions = _merged(actions)
    return tuple(cascades.with_takes(action, request) for action in actions) if takes_along else actions


def target_of(request: AdmissionRequest) -> Target:
    """The object that a request is about, by its real name (also for a collection, a proxy and an eviction)."""
    group, resource = request.resource.group, request.resource.resource
    new, old = request.new_head(), request.old_head()
    head = old if request.operation == "DELETE" else new or old
    name = request.name or _object_name(head)
    if request.sub_resource == "proxy":
        name = _without_scheme_and_port(name)
    elif request.operation == "CREATE" and head is not None and head.metadata.generate_name and not request.name:
        name = head.metadata.generate_name + "*"  # the last letters are made up anew at each try
    namespace = "" if (group, resource) == ("", "namespaces") else request.namespace
    describes_target = request.sub_resource in SUBRESOURCES_OF_THE_OBJECT
    return Target(group, resource, namespace, name, head.metadata.uid if head and describes_target else "")


def _delete(request: AdmissionRequest, _: Catalog) -> tuple[Action, ...]:
    if request.sub_resource:
        return ()
    target = target_of(request)
    kind = (target.group, target.resource)
    return (Action(DELETE, target, digest(DELETE), also=_ALSO_DELETED.get(kind, ()), cascade=kind in CASCADES),)


def _connect(request: AdmissionRequest, _: Catalog) -> tuple[Action, ...]:
    if request.sub_resource not in EXEC_SUBRESOURCES:
        return ()
    options = request.body()
    command = options.get("command") or []
    change = digest(
        EXEC, request.sub_resource, command, options.get("container"), options.get("ports"), options.get("path")
    )
    details = f"{request.sub_resource} {' '.join(map(str, command))}".strip()
    return (Action(EXEC, target_of(request), change, details=details),)


def _create(request: AdmissionRequest, _: Catalog) -> tuple[Action, ...]:
    if request.sub_resource == "eviction":
        return (Action(DELETE, target_of(request), digest(DELETE), also=(DRAIN,), details="eviction"),)
    if request.sub_resource:
        return ()
    head = request.new_head()
    if head is None:
        return ()
    target = target_of(request)
    actions: list[Action] = []
    template = pod_template(head)
    if template is not None:
        actions.append(_deploy(target, None, template))
        if access := host_access(template):
            actions.append(Action(EXEC, target, digest(EXEC, "host", access), details=f"host access: {access}"))
    if _replicas(head.spec) == 0 and template is not None:
        actions.append(_scale(target, None, 0))
    return tuple(actions)


def _update(request: AdmissionRequest, catalog: Catalog) -> tuple[Action, ...]:
    new, old = request.new_head(), request.old_head()
    if new is None or old is None:
        return ()
    handler = _BY_SUBRESOURCE.get(request.sub_resource)
    actions = handler(request, new, old) if handler else ()
    if catalog.scale_paths and not request.sub_resource:
        actions = (*actions, *_scaled_elsewhere(request, new, old, catalog))
    return (*actions, *_metadata_change(request, new, old, catalog))


def _metadata_change(
    request: AdmissionRequest, new: ObjectHead, old: ObjectHead, catalog: Catalog
) -> tuple[Action, ...]:
    """The same for every kind and subresource: metadata makes controllers act."""
    if new.metadata == old.metadata:
        return ()
    actions: list[Action] = []
    target = target_of(request)
    if deadly := deadly_change(new, old):
        actions.append(Action(DELETE, target, digest(DELETE, deadly), details=deadly))
    for operation, keys in catalog.obeyed(changed_keys(new, old)).items():
        details = "metadata that an add-on obeys: " + ", ".join(keys)
        actions.append(Action(operation, target, digest(operation, details), details=details))
    labels = changed_labels(new, old)
    powers = sorted(key for key in labels if key.startswith((POD_SECURITY_PREFIX, AGGREGATE_PREFIX)))
    if powers:
        after = {key: labels[key][1] for key in powers}
        actions.append(Action(ACCESS, target, digest(ACCESS, after), details="labels " + ", ".join(powers)))
    return tuple(actions)


def _changes_of_kind(request: AdmissionRequest, changes: tuple[kinds.KindChange, ...]) -> list[Action]:
    if request.operation not in {"CREATE", "UPDATE"}:
        return []
    wanted = [one for one in changes if request.sub_resource in one.subresources]
    if not wanted:
        return []
    new, old = request.body(), request.old_body()
    found = []
    for one in wanted:
        details = one.change(new, old)
        if details:
            change = digest(one.operation, details, [new.get(field) for field in one.fields])
            found.append(Action(one.operation, target_of(request), change, also=one.also, details=details))
    return found


def _orders(request: AdmissionRequest, deputies: tuple[Deputy, ...]) -> list[Action]:
    """What a controller will do because of what is written here."""
    found = []
    for one in deputies:
        order = one.order(request)
        if order is not None:
            change = digest(one.operation, order)
            found.append(Action(one.operation, target_of(request), change, details="an order to a controller"))
    return found


def _merged(actions: Iterable[Action]) -> tuple[Action, ...]:
    """One action a class: a request is proven once for each effect, whatever roads it takes at the same time."""
    found: dict[str, Action] = {}
    for action in actions:
        before = found.get(action.operation)
        if before is None:
            found[action.operation] = action
            continue
        found[action.operation] = msgspec.structs.replace(
            before,
            change=digest(before.change, action.change),
            repeatable=before.repeatable and action.repeatable,
            also=tuple(dict.fromkeys((*before.also, *action.also))),
            cascade=before.cascade or action.cascade,
            takes=before.takes or action.takes,
            details="; ".join(text for text in (before.details, action.details) if text),
        )
    return tuple(found.values())


def _update_object(request: AdmissionRequest, new: ObjectHead, old: ObjectHead) -> tuple[Action, ...]:
    if bytes(new.spec) == bytes(old.spec) and bytes(new.template) == bytes(old.template):
        return ()
    target = target_of(request)
    actions: list[Action] = []
    before, after = _replicas(old.spec), _replicas(new.spec)
    if before != after:
        actions.append(_scale(target, before, after))
    actions.extend(_template_change(target, pod_template(old), pod_template(new)))
    return tuple(actions)


def _scaled_elsewhere(
    request: AdmissionRequest, new: ObjectHead, old: ObjectHead, catalog: Catalog
) -> tuple[Action, ...]:
    """Custom resources whose replicas are not where the others have them."""
    kind = (request.resource.group, request.resource.resource)
    if kind not in catalog.scale_paths or bytes(new.spec) == bytes(old.spec):
        return ()
    counts = zip(catalog.replicas(kind, request.old_body()), catalog.replicas(kind, request.body()), strict=True)
    return tuple(_scale(target_of(request), was, now) for was, now in counts if was != now)


def _update_scale(request: AdmissionRequest, new: ObjectHead, old: ObjectHead) -> tuple[Action, ...]:
    # `replicas` is left out of a Scale's JSON when it is zero.
    before, after = _replicas(old.spec) or 0, _replicas(new.spec) or 0
    return () if before == after else (_scale(target_of(request), before, after),)


def _update_ephemeral_containers(request: AdmissionRequest, _new: ObjectHead, _old: ObjectHead) -> tuple[Action, ...]:
    before = _ephemeral(request.old_body())
    added = [container for container in _ephemeral(request.body()) if container not in before]
    if not added:
        return ()
    # kubectl debug makes a new name up at each try.
    unnamed = [{key: value for key, value in container.items() if key != "name"} for container in added]
    images_added = ", ".join(str(container.get("image")) for container in added)
    change = digest(EXEC, "ephemeral", unnamed)
    return (Action(EXEC, target_of(request), change, details=f"debug container {images_added}"),)


def _update_resize(request: AdmissionRequest, new: ObjectHead, old: ObjectHead) -> tuple[Action, ...]:
    if bytes(new.spec) == bytes(old.spec):
        return ()
    body = request.body().get("spec") or {}
    resources = [container.get("resources") for container in body.get("containers") or []]
    return (Action(DEPLOY, target_of(request), digest(DEPLOY, "resize", resources), details="resources of a pod"),)


def _template_change(target: Target, old: PodTemplate | None, new: PodTemplate | None) -> tuple[Action, ...]:
    if new is None or old is None or new.raw == old.raw:
        return ()
    before, after = old.restarted_at, new.restarted_at
    actions: list[Action] = []
    if old.content() != new.content():
        actions.append(_deploy(target, old, new))
    access = host_access(new)
    if access and access != host_access(old):
        actions.append(Action(EXEC, target, digest(EXEC, "host", access), details=f"host access: {access}"))
    if before != after:
        actions.append(Action(RESTART, target, digest(RESTART, after), repeatable=False, details="rollout restart"))
    return tuple(actions)


def _deploy(target: Target, old: PodTemplate | None, new: PodTemplate) -> Action:
    # A new template replaces the running pods as surely as a restart does.
    also = (RESTART,) if old is not None else ()
    was, now = images(old) if old else {}, images(new)
    changed = [
        f"image {name}: {was.get(name, 'none')} → {image}" for name, image in now.items() if was.get(name) != image
    ]
    if changed and old is not None and without_images(old) != without_images(new):
        changed.append("other fields of the pod template")
    return Action(
        DEPLOY, target, digest(DEPLOY, new.content()), also=also, details="; ".join(changed) or "pod template"
    )


def _scale(target: Target, before: int | None, after: int | None) -> Action:
    details = f"replicas {'?' if before is None else before} → {'?' if after is None else after}"
    return Action(SCALE, target, digest(SCALE, after), replicas_from=before, replicas_to=after, details=details)


def _replicas(spec: msgspec.Raw) -> int | None:
    if bytes(spec) == _JSON_NULL:
        return None
    try:
        return _replicas_decoder.decode(spec).replicas
    except msgspec.ValidationError:
        return None  # a custom resource whose spec or replicas is something else: not a scale


def _ephemeral(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    return (pod.get("spec") or {}).get("ephemeralContainers") or []


def _object_name(head: ObjectHead | None) -> str:
    return head.metadata.name if head else ""


def _without_scheme_and_port(name: str) -> str:
    """``https:web:8443`` → ``web``; the forms of k8s.io/apimachinery's SplitSchemeNamePort."""
    parts = name.split(":")
    if len(parts) == 3 and parts[0] in PROXY_SCHEMES:
        return parts[1]
    return parts[0]


_BY_OPERATION: dict[str, Callable[[AdmissionRequest, Catalog], tuple[Action, ...]]] = {
    "DELETE": _delete,
    "CONNECT": _connect,
    "CREATE": _create,
    "UPDATE": _update,
}
_BY_SUBRESOURCE: dict[str, Callable[[AdmissionRequest, ObjectHead, ObjectHead], tuple[Action, ...]]] = {
    UPDATE_OF_MAIN_RESOURCE: _update_object,
    "scale": _update_scale,
    "ephemeralcontainers": _update_ephemeral_containers,
    "resize": _update_resize,
}
