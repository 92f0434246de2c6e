"""What a typed command sends: the few of kubectl's that matter to policies, turned into the request that kubectl makes.

``evict POD`` is not one of kubectl's; it is the request of which ``kubectl drain`` is made.
"""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from webhook.cli.suites.document import SuiteError
from webhook.cli.suites.world import Thing, World
from webhook.core.templates import RESTARTED_AT

Json = dict[str, Any]
_VALUE_FLAGS: Final = {"-n": "namespace", "--namespace": "namespace", "--replicas": "replicas", "-c": "container", "--container": "container", "-p": "patch", "--patch": "patch"}  # fmt: skip
_RESTART_TIME: Final = "2026-01-01T00:00:00Z"


class Asked(NamedTuple):
    """A request, as far as a command decides it; ``kind`` is that of the body where it is not the object's own."""

    thing: Thing
    operation: str
    sub_resource: str = ""
    kind: tuple[str, str, str] | None = None
    new: Json | None = None
    old: Json | None = None


class Typed:
    """A command line, taken apart.

    Raises:
        SuiteError: it has an option that is not known here, or one without a value.
    """

    def __init__(self, line: str, field: str) -> None:
        self.field = field
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise SuiteError(field, f"cannot be taken apart: {error}") from error
        self.command: list[str] = []
        if "--" in words:
            self.command = words[words.index("--") + 1 :]
            words = words[: words.index("--")]
        self.words: list[str] = []
        self.flags: dict[str, str] = {}
        waiting = iter(words)
        for word in waiting:
            flag, has_value, value = word.partition("=")
            if not word.startswith("-"):
                self.words.append(word)
            elif flag in _VALUE_FLAGS and (value := value if has_value else next(waiting, "")):
                self.flags[_VALUE_FLAGS[flag]] = value
            elif flag in _VALUE_FLAGS:
                raise SuiteError(field, f"{flag} needs a value")
            else:
                raise SuiteError(field, f"{flag} is not known here; {', '.join(_VALUE_FLAGS)} are")

    def flag(self, name: str) -> str:
        """Value of an option that has to be there.

        Raises:
            SuiteError: it is not.
        """
        if name not in self.flags:
            raise SuiteError(self.field, f"--{name} is missing")
        return self.flags[name]

    def thing(self, world: World, words: Sequence[str], default_type: str = "") -> tuple[Thing, list[str]]:
        """The object that is named (``TYPE/NAME``, ``TYPE NAME``, or a name of the default type), and what follows.

        Raises:
            SuiteError: none is named, or there is none.
        """
        rest = list(words)
        first = rest.pop(0) if rest else ""
        kind, slash, name = first.partition("/")
        if not slash and default_type:
            kind, name = default_type, first
        elif not slash:
            name = rest.pop(0) if rest else ""
        if not kind or not name:
            raise SuiteError(self.field, "names no object: TYPE/NAME is missing")
        return world.find(kind, name, self.flags.get("namespace", ""), self.field), rest


def asked(line: str, world: World, field: str) -> Asked:
    """The request that a command makes.

    Raises:
        SuiteError: it is not a command that is known here, or it is about something that there is not.
    """
    return requested(Typed(line, field), world)


def requested(typed: Typed, world: World) -> Asked:
    """The same, of a command that has been taken apart already.

    Raises:
        SuiteError: as above.
    """
    for length in (2, 1):
        handler = _COMMANDS.get(" ".join(typed.words[:length]))
        if handler is not None:
            return handler(typed, world, typed.words[length:])
    raise SuiteError(typed.field, f"begins with none of: {', '.join(_COMMANDS)}; write the object out instead")


def _delete(typed: Typed, world: World, words: list[str]) -> Asked:
    thing, _ = typed.thing(world, words)
    return Asked(thing, "DELETE", old=thing.body)


def _evict(typed: Typed, world: World, words: list[str]) -> Asked:
    thing, _ = typed.thing(world, words, "pods")
    metadata = {"name": thing.name, "namespace": thing.namespace}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    return Asked(thing, "CREATE", "eviction", ("policy", "v1", "Eviction"), body)


def _scale(typed: Typed, world: World, words: list[str]) -> Asked:
    thing, _ = typed.thing(world, words)
    replicas = typed.flag("replicas")
    if not replicas.isdigit():
        raise SuiteError(typed.field, "--replicas must be a number")
    spec = thing.body.get("spec") or {}
    before = int(spec.get("replicas", 1))
    old, new = (_scale_of(thing, number) for number in (before, int(replicas)))
    return Asked(thing, "UPDATE", "scale", ("autoscaling", "v1", "Scale"), new, old)


def _scale_of(thing: Thing, replicas: int) -> Json:
    metadata = {"name": thing.name, "namespace": thing.namespace, "uid": thing.body["metadata"]["uid"]}
    spec = {"replicas": replicas} if replicas else {}
    return {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": spec}


def _connect(sub_resource: str, kind: str) -> Callable[[Typed, World, list[str]], Asked]:
    def handler(typed: Typed, world: World, words: list[str]) -> Asked:
        thing, _ = typed.thing(world, words, "pods")
        body: Json = {"apiVersion": "v1", "kind": kind}
        if sub_resource != "portforward":
            body.update(stdout=True, stderr=True)
            if container := typed.flags.get("container") or _first_container(thing):
                body["container"] = container
        if sub_resource == "exec":
            if not typed.command:
                raise SuiteError(typed.field, "exec needs a command after --")
            body["command"] = typed.command
        return Asked(thing, "CONNECT", sub_resource, ("", "v1", kind), body)

    return handler


def _first_container(thing: Thing) -> str:
    containers = (thing.body.get("spec") or {}).get("containers") or [{}]
    return str(containers[0].get("name", ""))


def _set_image(typed: Typed, world: World, words: list[str]) -> Asked:
    thing, rest = typed.thing(world, words)
    new = copy.deepcopy(thing.body)
    containers = {str(one.get("name")): one for one in _pod_spec(new).get("containers") or []}
    for pair in rest:
        name, _, image = pair.partition("=")
        if name not in containers or not image:
            raise SuiteError(
                typed.field, f"{pair}: must be CONTAINER=IMAGE, with one of {', '.join(containers) or 'none'}"
            )
        containers[name]["image"] = image
    return Asked(thing, "UPDATE", new=new, old=thing.body)


def _restart(typed: Typed, world: World, words: list[str]) -> Asked:
    thing, _ = typed.thing(world, words)
    new = copy.deepcopy(thing.body)
    template = new.setdefault("spec", {}).setdefault("template", {})
    template.setdefault("metadata", {}).setdefault("annotations", {})[RESTARTED_AT] = _RESTART_TIME
    return Asked(thing, "UPDATE", new=new, old=thing.body)


def _cordon(*, off: bool) -> Callable[[Typed, World, list[str]], Asked]:
    def handler(typed: Typed, world: World, words: list[str]) -> Asked:
        thing, _ = typed.thing(world, words, "nodes")
        new = copy.deepcopy(thing.body)
        new.setdefault("spec", {})["unschedulable"] = not off
        return Asked(thing, "UPDATE", new=new, old=thing.body)

    return handler


def _taint(typed: Typed, world: World, words: list[str]) -> Asked:
    thing, rest = typed.thing(world, words)
    new = copy.deepcopy(thing.body)
    taints = new.setdefault("spec", {}).setdefault("taints", [])
    for text in rest:
        key, _, effect = text.partition(":")
        if not effect:
            raise SuiteError(typed.field, f"{text}: must be KEY=VALUE:EFFECT")
        key, _, value = key.partition("=")
        taints.append({"key": key, "effect": effect, **({"value": value} if value else {})})
    return Asked(thing, "UPDATE", new=new, old=thing.body)


def _set_metadata(name: str) -> Callable[[Typed, World, list[str]], Asked]:
    def handler(typed: Typed, world: World, words: list[str]) -> Asked:
        thing, rest = typed.thing(world, words)
        new = copy.deepcopy(thing.body)
        values = new["metadata"].setdefault(name, {})
        for text in rest:
            key, has_value, value = text.partition("=")
            if has_value:
                values[key] = value
            elif key.endswith("-"):
                values.pop(key[:-1], None)
            else:
                raise SuiteError(typed.field, f"{text}: must be KEY=VALUE, or KEY- to take it off")
        return Asked(thing, "UPDATE", new=new, old=thing.body)

    return handler


def _patch(typed: Typed, world: World, words: list[str]) -> Asked:
    thing, _ = typed.thing(world, words)
    try:
        patch = json.loads(typed.flag("patch"))
    except ValueError as error:
        raise SuiteError(typed.field, "--patch is not JSON") from error
    if not isinstance(patch, dict):
        raise SuiteError(typed.field, "--patch must be an object")
    return Asked(thing, "UPDATE", new=_merged(thing.body, patch), old=thing.body)


def _merged(value: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    found = dict(value) if isinstance(value, dict) else {}
    for key, below in patch.items():
        if below is None:
            found.pop(key, None)
        else:
            found[key] = _merged(found.get(key), below)
    return found


def _token(typed: Typed, world: World, words: list[str]) -> Asked:
    thing, _ = typed.thing(world, words, "serviceaccounts")
    body: Json = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    return Asked(thing, "CREATE", "token", ("authentication.k8s.io", "v1", "TokenRequest"), body)


def _pod_spec(body: Json) -> Json:
    spec: Json = body.setdefault("spec", {})
    if "template" in spec:
        found: Json = spec["template"].setdefault("spec", {})
        return found
    return spec


_COMMANDS: Final[dict[str, Callable[[Typed, World, list[str]], Asked]]] = {
    "delete": _delete,
    "evict": _evict,
    "scale": _scale,
    "exec": _connect("exec", "PodExecOptions"),
    "attach": _connect("attach", "PodAttachOptions"),
    "port-forward": _connect("portforward", "PodPortForwardOptions"),
    "set image": _set_image,
    "rollout restart": _restart,
    "cordon": _cordon(off=False),
    "uncordon": _cordon(off=True),
    "taint": _taint,
    "label": _set_metadata("labels"),
    "annotate": _set_metadata("annotations"),
    "patch": _patch,
    "create token": _token,
}
COMMANDS: Final = tuple(_COMMANDS)
"""What a ``do`` can begin with."""
