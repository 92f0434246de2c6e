"""What a suite says that there is: namespaces, objects and users, found by the names that people type."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from webhook.cli.kinds import CLUSTER_SCOPED, usual
from webhook.cli.suites.document import NamespaceEntry, SuiteError, UserEntry
from webhook.core.applicable import PolicyIndex
from webhook.core.identity import service_account_username
from webhook.core.operation import Target
from webhook.core.policy import Policy
from webhook.core.request import CREDENTIAL_ID, ObjectMeta

Json = dict[str, Any]
_UIDS: Final = uuid.UUID("6f0b3f0a-5d0e-4d0c-9c55-8a3a2f6d3b11")
_API_VERSIONS: Final = {"": "v1", "policy": "policy/v1"}
_NAMESPACE: Final = ("", "namespaces")


class Kind(NamedTuple):
    """A kind by group and plural name, and whether it lives in a namespace."""

    group: str
    resource: str
    namespaced: bool


class Thing(NamedTuple):
    """An object that a request is about, with the kind that it is of."""

    kind: Kind
    body: Json

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.body["metadata"].get("name", ""))

    @property
    def namespace(self) -> str:
        """Its namespace; empty for what is in none."""
        return str(self.body["metadata"].get("namespace", "")) if self.kind.namespaced else ""


class World:
    """Namespaces, objects and users of a suite.

    Raises:
        SuiteError: one of them cannot be used.
    """

    def __init__(
        self,
        namespaces: Mapping[str, NamespaceEntry],
        users: Mapping[str, UserEntry],
        objects: Iterable[Json],
        policies: Iterable[Policy],
    ) -> None:
        self.index = PolicyIndex()
        for policy in policies:
            self.index.put_policy(policy)
        self._users = users
        self._things: dict[tuple[str, str, str, str], Thing] = {}
        for name, entry in namespaces.items():
            labels = {**entry.labels, "kubernetes.io/metadata.name": name}
            self.index.put_namespace(name, labels, entry.annotations)
            metadata = {"name": name, "labels": labels, "annotations": entry.annotations}
            body = {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": metadata,
                "spec": {"finalizers": ["kubernetes"]},
            }
            self._put(Thing(Kind("", "namespaces", namespaced=False), body))
        self._is_listed = False
        for position, obj in enumerate(objects):
            thing = self.thing(obj, f"objects[{position}]")
            self._put(thing)
            self._is_listed = True

    def thing(self, obj: Json, field: str, resource: str = "") -> Thing:
        """An object that is written out in a suite.

        Args:
            resource: ``clusters.cnpg.io``, where the kind does not tell the plural.

        Raises:
            SuiteError: it lacks what every object has, or its namespace is not listed.
        """
        metadata = obj.get("metadata")
        if not all(isinstance(obj.get(key), str) and obj[key] for key in ("apiVersion", "kind")):
            raise SuiteError(field, "needs apiVersion and kind")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            raise SuiteError(f"{field}.metadata.name", "is required")
        kind = kind_of(obj, resource)
        namespace = metadata.get("namespace", "")
        if kind.namespaced and not namespace:
            raise SuiteError(f"{field}.metadata.namespace", "is required")
        self.check_namespace(namespace, f"{field}.metadata.namespace")
        key = (kind.group, kind.resource, str(namespace), str(metadata["name"]))
        known = self._things.get(key)
        uid = known.body["metadata"]["uid"] if known else str(uuid.uuid5(_UIDS, "/".join(key)))
        return Thing(kind, {**obj, "metadata": {"uid": uid, **metadata}})

    def check_namespace(self, name: str, field: str) -> None:
        """Refuse a namespace that is not listed.

        Raises:
            SuiteError: it is not.
        """
        if name and not self.index.knows_namespace(name):
            raise SuiteError(field, f"there is no namespace {name}; add it to `namespaces`")

    def find(self, typed: str, name: str, namespace: str, field: str) -> Thing:
        """The object that somebody types as ``TYPE/NAME``; one is made up when the suite lists none at all.

        Raises:
            SuiteError: there is none.
        """
        kind = self._kind(typed, field)
        if kind.namespaced and not namespace:
            raise SuiteError(field, f"{typed} are in a namespace: say -n NAMESPACE")
        namespace = namespace if kind.namespaced else ""
        self.check_namespace(namespace, field)
        found = self._things.get((kind.group, kind.resource, namespace, name))
        if found is not None:
            return found
        if self._is_listed or (kind.group, kind.resource) == _NAMESPACE:
            where = f" in {namespace}" if namespace else ""
            raise SuiteError(field, f"there is no {typed}/{name}{where}; add it to `objects`")
        singular = kind.resource.removesuffix("s").capitalize()
        api_version = _API_VERSIONS.get(kind.group, f"{kind.group}/v1")
        metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
        return self.thing({"apiVersion": api_version, "kind": singular, "metadata": metadata}, field, _typed(kind))

    def meta(self, target: Target) -> ObjectMeta | None:
        """Metadata of an object that is listed, as a live read would tell; None when there is none."""
        thing = self._things.get((target.group, target.resource, target.namespace, target.name))
        return msgspec.convert(thing.body["metadata"], ObjectMeta) if thing else None

    def user(self, name: str) -> Json:
        """``userInfo`` of one of the users."""
        entry = self._users[name]
        account = entry.service_account
        username = entry.username or (service_account_username(account) if account else name)
        groups = [*entry.groups, "system:authenticated"]
        found: Json = {"username": username, "groups": groups}
        credential = entry.credential or ("token" if account else "certificate")
        if account:
            groups[:0] = ["system:serviceaccounts", f"system:serviceaccounts:{account.partition('/')[0]}"]
            found["uid"] = str(uuid.uuid5(_UIDS, username))
        digest = hashlib.sha256(username.encode()).hexdigest()
        identifier = {"certificate": f"X509SHA256={digest}", "token": f"JTI={uuid.uuid5(_UIDS, digest)}"}.get(
            credential
        )
        return {**found, "extra": {CREDENTIAL_ID: [identifier]}} if identifier else found

    def _put(self, thing: Thing) -> None:
        thing.body["metadata"].setdefault("uid", str(uuid.uuid5(_UIDS, f"{thing.kind}/{thing.namespace}/{thing.name}")))
        self._things[thing.kind.group, thing.kind.resource, thing.namespace, thing.name] = thing

    def _kind(self, typed: str, field: str) -> Kind:
        known = usual(typed)
        if known is not None:
            return Kind(*known)
        plural, _, group = typed.partition(".")
        for thing in self._things.values():
            names = {thing.kind.resource, str(thing.body["kind"]).lower()}
            if plural.lower() in names and group in {"", thing.kind.group}:
                return thing.kind
        raise SuiteError(field, f"there is no kind {typed}: write it with its group, and an object of it in `objects`")


def kind_of(obj: Mapping[str, Any], resource: str = "") -> Kind:
    """Group, plural name and scope of an object; what is unusual is guessed as the API's own machinery guesses."""
    group = str(obj["apiVersion"]).rpartition("/")[0]
    namespaced = bool((obj.get("metadata") or {}).get("namespace"))
    if resource:
        plural = resource.partition(".")[0]
        return Kind(group, plural, namespaced and plural not in CLUSTER_SCOPED)
    lower = str(obj["kind"]).lower()
    known = usual(f"{lower}.{group}" if group else lower)
    if known is not None and known[0] == group:
        return Kind(*known)
    return Kind(group, _plural(lower), namespaced)


def _plural(lower: str) -> str:
    if lower.endswith(("s", "x", "ch", "sh")):
        return f"{lower}es"
    return f"{lower[:-1]}ies" if lower.endswith("y") and lower[-2:-1] not in "aeiou" else f"{lower}s"


def _typed(kind: Kind) -> str:
    return f"{kind.resource}.{kind.group}" if kind.group else kind.resource
