"""Settings of the issuers whose pipelines' tokens can be exchanged; a part of ``settings``."""

from __future__ import annotations

import ssl
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel

MAX_URL_LETTERS = 512
RECORDED_CLAIMS: tuple[str, ...] = (
    # What tells one run of a pipeline from another, as GitHub Actions, GitLab CI and Buildkite name it.
    "repository",
    "ref",
    "sha",
    "workflow_ref",
    "job_workflow_ref",
    "event_name",
    "run_id",
    "run_attempt",
    "actor",
    "environment",
    "runner_environment",
    "project_path",
    "pipeline_id",
    "pipeline_source",
    "job_id",
    "user_login",
    "organization_slug",
    "pipeline_slug",
    "build_number",
    "build_branch",
    "build_commit",
)


class WorkloadIssuerSettings(BaseModel):
    """An issuer of pipelines' tokens (OpenID Connect) whose tokens can be exchanged.

    ``audiences`` default to the cluster's own; ``jwks_uri`` replaces discovery; ``ca_bundle`` (PEM) replaces the usual
    CAs; ``recorded_claims`` are those that go into the record and the assertion.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

    issuer: str
    audiences: tuple[str, ...] = Field((), max_length=8)
    jwks_uri: str = ""
    algorithms: tuple[Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"], ...] = Field(
        ("RS256", "ES256"), min_length=1
    )
    ca_bundle: str = ""
    max_token_age_seconds: int = Field(3600, ge=10, le=24 * 3600)
    recorded_claims: tuple[str, ...] = Field(RECORDED_CLAIMS, max_length=32)

    @field_validator("issuer", "jwks_uri")
    @classmethod
    def _url(cls, url: str, info: ValidationInfo) -> str:
        if url or info.field_name == "issuer":
            https = url.startswith("https://") and len(url) <= MAX_URL_LETTERS and url.isprintable()
            if not https or any(letter in url for letter in "#@ ") or (info.field_name == "issuer" and "?" in url):
                raise ValueError("must be an https:// URL")
        return url

    @field_validator("audiences")
    @classmethod
    def _named(cls, audiences: tuple[str, ...]) -> tuple[str, ...]:
        if not all(audiences):
            raise ValueError("an audience must not be empty")
        return audiences

    @field_validator("ca_bundle")
    @classmethod
    def _certificates(cls, bundle: str) -> str:
        if bundle:
            try:
                ssl.create_default_context(cadata=bundle)
            except (ssl.SSLError, ValueError) as error:
                raise ValueError("must be CA certificates in PEM") from error
        return bundle
