"""StepUpPolicy (``kube-stepup.io/v1alpha1``): parsed, checked and compiled once, then only asked.

The schema of the CRD says the same; this is the same check for files, and for objects that reached us another way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import re2  # RE2: no pattern of a policy can take for ever

from webhook.core import cascades
from webhook.core.approvals import ApprovalRule
from webhook.core.cel import Activation, Conditions
from webhook.core.durations import parse_seconds
from webhook.core.identity import is_bound_service_account, service_account_of, service_account_username
from webhook.core.operation import DELETE, GUARD, Action
from webhook.core.policy_spec import BreakGlassSpec, PolicySpec, RuleSpec, SubjectsSpec, read_spec
from webhook.core.raw import RawPattern, is_raw
from webhook.core.request import UserInfo
from webhook.core.requirement import Requirement
from webhook.core.selectors import Labels, Matcher, any_glob
from webhook.core.workloads import Workloads
from webhook.errors import PolicyError

API_VERSION = "kube-stepup.io/v1alpha1"
KIND = "StepUpPolicy"


class Subjects:
    """A compiled set of people and accounts."""

    def __init__(self, spec: SubjectsSpec | BreakGlassSpec) -> None:
        self._users = any_glob(spec.users)
        self._groups = any_glob(spec.groups)
        accounts = spec.service_accounts if isinstance(spec, SubjectsSpec) else ()
        self._accounts = any_glob(accounts)
        self._account_namespaces = any_glob(account.partition("/")[0] for account in accounts)
        self._user_patterns = spec.users
        self.is_empty = not (spec.users or spec.groups or accounts)

    def include(self, user: UserInfo) -> bool:
        """Whether the user is meant, going by names alone."""
        if self.is_empty:
            return False
        if self._users(user.username) or any(map(self._groups, user.groups)):
            return True
        account = service_account_of(user)
        return bool(account) and self._accounts(account)

    def include_account(self, account: str) -> bool:
        """Whether a service account (``namespace/name``) is meant."""
        namespace = account.partition("/")[0]
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        named = self._accounts(account) or self._users(service_account_username(account))
        return named or any(map(self._groups, groups))

    def has_account_in(self, namespace: str) -> bool:
        """Whether a service account of a namespace can be meant."""
        if self._account_namespaces(namespace) or self._groups(f"system:serviceaccounts:{namespace}"):
            return True
        prefix = service_account_username(f"{namespace}/")
        return any(one.startswith(prefix) or "*" in one or "?" in one or "[" in one for one in self._user_patterns)

    def privilege(self, user: UserInfo) -> bool:
        """Whether the user is meant **and** shown by a credential: an exemption is never given to a bare name.

        Impersonation has no credential-id; a service account must come with its own bound token, not with a
        certificate in its name.
        """
        if not user.credential_id or not self.include(user):
            return False
        return not service_account_of(user) or is_bound_service_account(user)


class Rule:
    """A compiled rule."""

    def __init__(self, spec: RuleSpec, policy: str, field: str) -> None:
        self.name = spec.name
        self.operations = frozenset(spec.operations)
        self.raw = tuple(
            RawPattern.parse(one, f"{field}.operations[{n}]") for n, one in enumerate(spec.operations) if is_raw(one)
        )
        self._resources = _resource_matcher(spec.resources)
        self.requirement = _requirement(spec, policy, field)
        self._policy = policy
        self.conditions = Conditions(
            (one.expression for one in spec.conditions), ((one.name, one.expression) for one in spec.variables), field
        )

    def applies_to(self, action: Action) -> bool:
        """Whether the rule asks for proof of this action, because of its target.

        What takes everything inside with it (a Namespace) is asked whatever deleting anything inside would be.
        """
        return self._asks(action, (action.target.group_resource,), everything=action.cascade)

    def applies_along(self, action: Action) -> bool:
        """Whether the rule asks for proof of this action, because of what goes along with its target."""
        return action.takes is not None and self._asks(action, action.takes.resources)

    def _asks(self, action: Action, kinds: tuple[str, ...], *, everything: bool = False) -> bool:
        classes = (action.operation, *action.also)
        if any(one in self.operations for one in classes) and (everything or any(map(self._resources, kinds))):
            return True
        if is_raw(action.operation):
            return any(one.covers(action.operation) for one in self.raw)
        return DELETE in classes and any(
            one.deletes and (everything or any(map(one.covers_kind, kinds))) for one in self.raw
        )

    def holds(self, activation: Activation | None) -> bool:
        """Whether every condition is true; what is not known (None) or cannot be evaluated counts as true."""
        return activation is None or not self.conditions or self.conditions.hold(activation, self._policy)

    def covers(self, operation: str, also: tuple[str, ...] = ()) -> bool:
        """Whether the rule is about this class, or about one that comes with it."""
        classes = (operation, *also)
        if any(one in self.operations for one in classes):
            return True
        if is_raw(operation):
            return any(one.covers(operation) for one in self.raw)
        return DELETE in classes and any(one.deletes for one in self.raw)


class Policy:
    """A compiled StepUpPolicy. Make one with :meth:`parse`."""

    def __init__(self, name: str, uid: str, generation: int, spec: PolicySpec) -> None:
        self.name = name
        self.uid = uid
        self.generation = generation
        self.spec = spec
        self.enforcement = spec.enforcement
        match = spec.match
        self._namespace_selector = match.namespace_selector
        self._namespace_glob: Matcher | None = any_glob(match.namespaces) if match.namespaces else None
        selector = match.object_selector
        self.object_selector = None if selector is None or selector.is_empty else selector
        self._subjects = Subjects(match.subjects) if match.subjects is not None else None
        self.exempt = Subjects(match.exempt)
        self.break_glass = Subjects(match.break_glass)
        self.rules = tuple(Rule(rule, name, f"spec.rules[{n}]") for n, rule in enumerate(spec.rules))
        self.operations = frozenset().union(*(rule.operations for rule in self.rules))

    @classmethod
    def parse(cls, obj: Mapping[str, Any]) -> Policy:
        """Read a StepUpPolicy object.

        Raises:
            PolicyError: it cannot be used; ``field`` says where.
        """
        if obj.get("apiVersion") != API_VERSION or obj.get("kind") != KIND:
            raise PolicyError(f"must be a {KIND} of {API_VERSION}", field="apiVersion, kind")
        metadata = obj.get("metadata") or {}
        name = metadata.get("name")
        if not isinstance(name, str) or not name:
            raise PolicyError("is required", field="metadata.name")
        return cls(name, str(metadata.get("uid", "")), int(metadata.get("generation") or 0), read_spec(obj.get("spec")))

    @property
    def can_match_cluster_scoped(self) -> bool:
        """Whether objects without a namespace (other than Namespaces) can be matched."""
        return self._namespace_selector is None and self._namespace_glob is None

    def can_match_namespace(self, name: str, labels: Labels | None) -> bool:
        """Whether objects of this namespace are matched; labels that are unknown (None) match on doubt."""
        if self._namespace_glob is not None and not self._namespace_glob(name):
            return False
        if self._namespace_selector is None or labels is None:
            return True
        return self._namespace_selector.matches({**labels, "kubernetes.io/metadata.name": name})

    def is_about(self, user: UserInfo) -> bool:
        """Whether the policy's subjects include the user."""
        return self._subjects is None or self._subjects.include(user)

    @property
    def guarding_requirements(self) -> tuple[Requirement, ...]:
        """What weakening this policy asks for: its `guard` rules, else the strictest of its rules, for the very object.

        The strictest is the one with the highest assurance, then phishing-resistant, then the shortest age: reason patterns
        have no order, so the others' are not asked for.
        """
        requirements = [rule.requirement for rule in self.rules if GUARD in rule.operations]
        if not requirements:
            every = [rule.requirement for rule in self.rules]
            strict = max(every, key=lambda one: one.strength)
            # Nobody can do away alone with what takes two.
            agreed = [one for one in every if one.approvals is not None and one is not strict]
            requirements = [strict, *(msgspec.structs.replace(one, **_ANY_REASON) for one in agreed)]
            # A pipeline that may deploy may not, for that, weaken the policy: only a `guard` rule of its own says so.
            requirements = [msgspec.structs.replace(one, workloads=None) for one in requirements]
        return tuple(msgspec.structs.replace(one, use="Once", scope="Object") for one in requirements)

    def rules_for(self, action: Action) -> list[Rule]:
        """The rules that ask for proof of the action, because of its target."""
        return [rule for rule in self.rules if rule.applies_to(action)]

    def rules_along(self, action: Action) -> list[Rule]:
        """The rules that ask for proof of the action, because of what goes along."""
        return [rule for rule in self.rules if rule.applies_along(action)]

    @property
    def taken_along(self) -> frozenset[str]:
        """Cluster-scoped kinds (``core/nodes``) whose end takes something along that the policy is about."""
        return cascades.reaching(self.rules)


_ANY_REASON: dict[str, Any] = {"reason_required": False, "reason_pattern": "", "reason_matches": None}


def _resource_matcher(patterns: tuple[str, ...]) -> Matcher:
    """``deployments`` matches in any group, ``apps/deployments`` in one, ``core/pods`` or ``/pods`` in the core group."""
    full = [
        "core" + one if one.startswith("/") else one if "/" in one or one == "*" else "*/" + one for one in patterns
    ]
    return any_glob(full)


def _requirement(spec: RuleSpec, policy: str, field: str) -> Requirement:
    require = spec.require
    pattern = require.reason.pattern
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(f"^(?:{pattern})$", options) if pattern else None
    except re2.error as error:
        raise PolicyError("is not an RE2 expression", field=f"{field}.require.reason.pattern") from error
    return Requirement(
        policy=policy,
        rule=spec.name,
        assurance=require.assurance,
        phishing_resistant=require.phishing_resistant,
        max_age_seconds=parse_seconds(require.max_age),
        use=require.use,
        scope=require.scope,
        bind=require.bind,
        reason_required=require.reason.required or bool(pattern),
        reason_pattern=pattern,
        reason_matches=(lambda text: compiled.match(text) is not None) if compiled else None,
        approvals=ApprovalRule.of(require.approvals.count, require.approvals.groups) if require.approvals else None,
        hold_seconds=parse_seconds(require.hold) if require.hold else 0,
        workloads=Workloads(spec.workloads, policy, spec.name, field) if spec.workloads else None,
    )
