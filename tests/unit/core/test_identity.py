"""Who is a controller: a name and the credential that only the real one has."""

from __future__ import annotations

import msgspec
import pytest

from tests.builders import service_account, user
from webhook.core.identity import BreakGlass, Controllers
from webhook.core.request import UserInfo
from webhook.settings import ControllerIdentities

GC = "system:serviceaccount:kube-system:generic-garbage-collector"
X509 = "X509SHA256=00ff"


def includes(info: dict[str, object], **settings: object) -> bool:
    identities = ControllerIdentities.model_validate(settings)
    controllers = Controllers(
        identities.service_accounts, identities.certificate_users, nodes_by_certificate=identities.nodes_by_certificate
    )
    return controllers.includes(msgspec.convert(info, UserInfo))


@pytest.mark.parametrize(
    "info",
    [
        service_account("kube-system", "generic-garbage-collector"),
        service_account("kube-system", "namespace-controller"),
        user("system:kube-controller-manager", credential=X509),
        user("system:kube-scheduler", credential=X509),
        user("system:node:n1", "system:nodes", credential=X509),
        user("system:apiserver", "system:masters", credential=None, uid="made-up-at-start"),
    ],
)
def test_the_clusters_own_parts_are_controllers(info: dict[str, object]) -> None:
    assert includes(info)


@pytest.mark.parametrize(
    "info",
    [
        pytest.param(user("alice"), id="a person"),
        pytest.param(user("admin", "system:masters"), id="an administrator"),
        pytest.param(user(GC, credential=X509), id="a certificate in a controller's name"),
        pytest.param(
            service_account("kube-system", "generic-garbage-collector", credential=None),
            id="impersonation, or a legacy token",
        ),
        pytest.param(service_account("kube-system", "generic-garbage-collector", uid=""), id="no uid"),
        pytest.param(
            user(GC, "system:serviceaccounts", credential="JTI=a", uid="u"), id="not in the namespace's group"
        ),
        pytest.param(service_account("kube-system", "default"), id="another account of kube-system"),
        pytest.param(service_account("shop", "generic-garbage-collector"), id="the name in another namespace"),
        pytest.param(user("system:node:n1", credential=X509), id="a node without its group"),
        pytest.param(user("system:node:n1", "system:nodes", credential=None), id="an impersonated node"),
        pytest.param(user("system:kube-scheduler", credential="JTI=a"), id="a token in a component's name"),
        pytest.param(user("system:apiserver", credential=None, uid="u"), id="the API server's name without its group"),
        pytest.param(user("system:apiserver", "system:masters", credential=None), id="the API server impersonated"),
        pytest.param(user("system:apiserver", "system:masters", uid="u"), id="a certificate in the API server's name"),
        pytest.param(
            user("system:serviceaccount:kube-system", credential="JTI=a", uid="u"), id="half a service account"
        ),
    ],
)
def test_everybody_else_is_a_person(info: dict[str, object]) -> None:
    assert not includes(info)


def test_a_minted_token_is_told_by_nothing_and_so_minting_is_guarded_elsewhere() -> None:
    # `kubectl create token` for a controller's account gives a genuine JTI: the review cannot tell it from the real
    # one. docs/threat-model.md says so; minting is an operation of its own.
    assert includes(service_account("kube-system", "generic-garbage-collector", credential="JTI=minted-by-an-editor"))


def test_nodes_can_be_left_to_other_credentials() -> None:
    assert not includes(user("system:node:n1", "system:nodes", credential=X509), nodesByCertificate=False)


GLASS = BreakGlass(users=("erika",), groups=("incident",))


@pytest.mark.parametrize(
    ("info", "passes"),
    [
        (user("erika"), True),
        (user("alice", "devs", "incident"), True),
        (user("alice", "incident", credential="JTI=1"), True),
        (user("alice"), False),
        (user("alice", "incident-2"), False),
        (user("erika", credential=None), False),
        (user("alice", "incident", credential=None), False),
        (user("alice", "incident", credential="PROXY=1"), False),
        (user("system:serviceaccount:ci:bot", "incident", credential="JTI=1"), False),
    ],
)
def test_who_breaks_the_glass_of_the_whole_cluster(info: dict[str, object], passes: bool) -> None:
    """By name and credential: impersonation has none, and a service account is no person."""
    assert GLASS.includes(msgspec.convert(info, UserInfo)) is passes
