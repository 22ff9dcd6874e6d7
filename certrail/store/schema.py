"""Tables of the inventory database.

Constraints hold what must never happen: two active requests for one
endpoint, two live orders for one request, two outcomes for one effect.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from certrail.jobs.status import JobStatus
from certrail.model import Action, Workflow
from certrail.tracker import ACTIVE, Status, StepStatus

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Now = func.now()


def _at(name: str, *, nullable: bool = True) -> Column[Any]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _created() -> Column[Any]:
    return Column("created_at", DateTime(timezone=True), nullable=False, server_default=_Now)


def _quoted(values: object) -> str:
    return ", ".join(f"'{value}'" for value in values)  # type: ignore[attr-defined]


connectors = Table(
    "connectors",
    metadata,
    Column("name", Text, primary_key=True),
    Column("slug", Text, nullable=False, comment="block type; with the name, the block to load"),
    _created(),
    _at("updated_at"),
    _at("checked_at"),
    Column("check_ok", Boolean),
    Column("check_message", Text),
    Column("executor", Text, comment="agent or sensor that reaches it; null: any"),
    comment="Names of connectors. Their settings are Prefect blocks.",
)

profiles = Table(
    "profiles",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True, server_default=text("gen_random_uuid()")),
    Column("name", Text, nullable=False, unique=True),
    Column("workflow", Text, nullable=False),
    Column("ca", Text, ForeignKey("connectors.name"), nullable=False),
    Column("settings", JSONB, nullable=False, comment="the profile as applied, without secrets"),
    _created(),
    _at("updated_at"),
    CheckConstraint(f"workflow in ({_quoted(Workflow)})", name="workflow"),
)

HAS_FURTHER_PLACES = text("also_on <> '[]'::jsonb")
"""What the index of the few endpoints is about whose certificate is on several machines."""

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True, server_default=text("gen_random_uuid()")),
    Column("location", Text, nullable=False, unique=True),
    Column("addresses", ARRAY(Text), nullable=False, server_default="{}"),
    Column("sni", Text),
    Column("names", ARRAY(Text), nullable=False, server_default="{}"),
    Column("profile_id", UUID(as_uuid=True), ForeignKey("profiles.id")),
    Column("target", Text, ForeignKey("connectors.name")),
    Column("server", JSONB, nullable=False, server_default="{}"),
    Column(
        "also_on",
        JSONB,
        nullable=False,
        server_default="[]",
        comment="further places of the same certificate",
    ),
    Column("starttls", Text),
    Column("tags", ARRAY(Text), nullable=False, server_default="{}"),
    Column("certificate_id", UUID(as_uuid=True), ForeignKey("certificates.id", use_alter=True)),
    Column("observed", JSONB, comment="what the last scan or test saw served"),
    _at("observed_at"),
    _at("last_success_at"),
    _at("next_renewal_at"),
    Column("auto_renew", Boolean, comment="null: as the profile says"),
    Column("criticality", Text, nullable=False, server_default="normal"),
    Column("executor", Text, comment="null: that of the target"),
    Column("renewal", JSONB, comment="why and when it renews, as the sweep decided last"),
    _at("renewal_decided_at"),
    # Below: derived by a trigger, so that lists find and sort by index. A certificate never
    # changes, so what is repeated of it cannot become wrong; statuses are not repeated.
    Column("served_fingerprint", Text),
    Column("finding_codes", ARRAY(Text), nullable=False, server_default="{}"),
    Column("shown_id", UUID(as_uuid=True), comment="the certificate that lists show"),
    Column("shown_names", ARRAY(Text), nullable=False, server_default="{}"),
    Column("shown_words", Text, nullable=False, server_default=""),
    Column("shown_common_name", Text),
    Column("shown_issuer", Text),
    Column("shown_fingerprint", Text),
    Column("shown_serial", Text),
    Column("shown_key", Text),
    Column("shown_key_hash", Text, comment="SHA-256 of the public key, hex"),
    Column("host", Text, comment="the location without its port"),
    _at("shown_not_after"),
    Column("sort_tags", Text, nullable=False, server_default=""),
    Column("sort_workflow", Text),
    Column("sort_ca", Text),
    Column("sort_lifetime", Integer, comment="days"),
    Column("own_kind", Text, comment="CA and key of what it got from us"),
    Column(
        "own_lacks",
        Boolean,
        nullable=False,
        server_default="false",
        comment="a name is configured that the certificate does not have",
    ),
    Column(
        "differs",
        Boolean,
        Computed("coalesce(shown_id <> certificate_id, false)", persisted=True),
        nullable=False,
    ),
    Column(
        "renewal_too_late",
        Boolean,
        Computed("coalesce(next_renewal_at >= shown_not_after, false)", persisted=True),
        nullable=False,
    ),
    _created(),
    _at("updated_at"),
    CheckConstraint("criticality in ('critical', 'high', 'normal', 'low')", name="criticality"),
    Index(None, "certificate_id"),
    Index("ix_endpoints_tags", "tags", postgresql_using="gin"),
    Index("ix_endpoints_served_fingerprint", "served_fingerprint"),
    Index("ix_endpoints_profile_location", "profile_id", "location"),
    Index("ix_endpoints_target_location", "target", "location"),
    Index("ix_endpoints_also_on", "location", postgresql_where=HAS_FURTHER_PLACES),
    Index(
        "ix_endpoints_not_configured",
        "location",
        postgresql_where=text("profile_id is null or target is null"),
    ),
    Index("ix_endpoints_server", text("lower(server->>'kind')"), "location"),
    Index("ix_endpoints_common_name", text("lower(shown_common_name)"), "location"),
    Index("ix_endpoints_issuer", text("lower(shown_issuer)"), "location"),
    Index("ix_endpoints_fingerprint", "shown_fingerprint", "location"),
    Index("ix_endpoints_serial", text("lower(shown_serial)"), "location"),
    Index("ix_endpoints_key", text("lower(shown_key)"), "location"),
    Index("ix_endpoints_not_after", "shown_not_after", "location"),
    Index(
        "ix_endpoints_key_hash",
        "shown_key_hash",
        "host",
        postgresql_where=text("shown_key_hash is not null"),
    ),
    Index("ix_endpoints_last_success", "last_success_at", "location"),
    Index("ix_endpoints_next_renewal", "next_renewal_at", "location"),
    Index(
        "ix_endpoints_sort_tags", "sort_tags", "location", postgresql_where=text("sort_tags <> ''")
    ),
    Index("ix_endpoints_sort_workflow", "sort_workflow", "location"),
    Index("ix_endpoints_sort_ca", "sort_ca", "location"),
    Index("ix_endpoints_sort_lifetime", "sort_lifetime", "location"),
    Index("ix_endpoints_own_kind", "profile_id", "own_kind"),
    Index("ix_endpoints_own_lacks", "location", postgresql_where=text("own_lacks")),
    Index(
        "ix_endpoints_renewal_too_late",
        "location",
        postgresql_where=text("renewal_too_late"),
    ),
    Index(
        "ix_endpoints_renewal_held",
        "location",
        postgresql_where=text("renewal->>'code' = 'held'"),
    ),
    Index("ix_endpoints_executor", "executor", postgresql_where=text("executor is not null")),
    Index("ix_endpoints_words_location", text("left(shown_words, 300)"), "location"),
    Index("ix_endpoints_differs", "location", postgresql_where=text("differs")),
    Index("ix_endpoints_names", "shown_names", postgresql_using="gin"),
    Index("ix_endpoints_findings", "finding_codes", postgresql_using="gin"),
    Index(
        "ix_endpoints_location_text",
        "location",
        postgresql_using="gin",
        postgresql_ops={"location": "gin_trgm_ops"},
    ),
    Index(
        "ix_endpoints_common_name_text",
        "shown_common_name",
        postgresql_using="gin",
        postgresql_ops={"shown_common_name": "gin_trgm_ops"},
    ),
    Index(
        "ix_endpoints_words_text",
        "shown_words",
        postgresql_using="gin",
        postgresql_ops={"shown_words": "gin_trgm_ops"},
    ),
)

shared_keys = Table(
    "shared_keys",
    metadata,
    Column("key_hash", Text, primary_key=True),
    comment="Public keys that several hosts serve, kept by a trigger.",
)

certificates = Table(
    "certificates",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True, server_default=text("gen_random_uuid()")),
    Column("fingerprint", Text, nullable=False, unique=True),
    Column("serial", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("common_name", Text),
    Column("names", ARRAY(Text), nullable=False),
    Column("key_kind", Text, nullable=False),
    _at("not_before", nullable=False),
    _at("not_after", nullable=False),
    Column("chain_pem", Text, nullable=False),
    Column("key_hash", Text, comment="SHA-256 of the public key, hex"),
    Column("key_id", UUID(as_uuid=True), ForeignKey("keys.id"), comment="null: not ours"),
    Column("ca", Text, comment="connector that issued it; null: only observed"),
    _at("revoked_at"),
    _created(),
    Index(None, "not_after"),
)

renewal_info = Table(
    "renewal_info",
    metadata,
    Column("certificate_id", UUID(as_uuid=True), ForeignKey("certificates.id"), primary_key=True),
    _at("window_start"),
    _at("window_end"),
    Column("explanation_url", Text, nullable=False, server_default=""),
    _at("asked_at", nullable=False),
    _at("ask_again_at", nullable=False),
    Column("error", Text, comment="why the CA could not be asked last"),
    Index(None, "ask_again_at"),
    comment="When a CA wants its certificates renewed (RFC 9773).",
)

executors = Table(
    "executors",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("queues", ARRAY(Text), nullable=False, server_default="{}"),
    Column("version", Text, nullable=False),
    Column("host", Text, nullable=False),
    _at("started_at", nullable=False),
    _at("last_seen_at", nullable=False),
    _at("stopped_at"),
    _at("silent_since"),
    comment="Agents and sensors: workers that run requests, and when they were heard of.",
)

keys = Table(
    "keys",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("purpose", Text, nullable=False, comment="leaf or acme-account"),
    Column("sealed", Text, comment="null once destroyed"),
    Column("algorithm", Text, nullable=False),
    _created(),
    _at("destroyed_at"),
)

acme_accounts = Table(
    "acme_accounts",
    metadata,
    Column("connector", Text, primary_key=True),
    Column("directory_url", Text, primary_key=True),
    Column("key_id", UUID(as_uuid=True), ForeignKey("keys.id"), nullable=False),
    Column("url", Text, nullable=False, server_default="", comment="empty until the CA answered"),
    Column("contact", ARRAY(Text), nullable=False, server_default="{}"),
    Column("eab_kid", Text, nullable=False, server_default=""),
    _created(),
    _at("updated_at"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True, server_default=text("gen_random_uuid()")),
    Column("name", Text, nullable=False, unique=True),
    Column("action", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("settings", JSONB, nullable=False, server_default="{}"),
    Column("requested_by", Text, nullable=False, server_default=""),
    Column("flow_run_id", UUID(as_uuid=True)),
    Column("run_count", Integer, nullable=False, server_default="0"),
    Column("lease_owner", Text),
    _at("lease_until"),
    Column("pause_requested", Boolean, nullable=False, server_default="false"),
    Column("cancel_requested", Boolean, nullable=False, server_default="false"),
    Column("stop_code", Text, comment="why it begins no more endpoints, by itself"),
    Column("stop_message", Text),
    Column("reopened_at", DateTime(timezone=True), comment="failures before do not stop it"),
    _created(),
    _at("scheduled_at"),
    _at("started_at"),
    _at("ended_at"),
    _at("taken_at"),
    CheckConstraint(f"status in ({_quoted(JobStatus)})", name="status"),
)

job_shards = Table(
    "job_shards",
    metadata,
    Column("job_id", UUID(as_uuid=True), ForeignKey("jobs.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("wave", Integer, nullable=False),
    Column("pool", Text, nullable=False),
    Column("queue", Text, comment="of the executor that alone reaches the endpoints"),
    Column("lane", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column(
        "places",
        Integer,
        nullable=False,
        server_default="0",
        comment="of the job's places, those that it has while its lease lasts",
    ),
    Column(
        "wanted",
        Integer,
        nullable=False,
        server_default="0",
        comment="places that it could use now",
    ),
    Column("flow_run_id", UUID(as_uuid=True)),
    Column("task_run_id", UUID(as_uuid=True), comment="in the job's run; its endpoints' parent"),
    Column("run_count", Integer, nullable=False, server_default="0"),
    Column("lease_owner", Text),
    _at("lease_until"),
    comment="Endpoints of a job that one worker takes together.",
)

requests = Table(
    "requests",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True, server_default=text("gen_random_uuid()")),
    Column("endpoint_id", UUID(as_uuid=True), ForeignKey("endpoints.id"), nullable=False),
    Column("job_id", UUID(as_uuid=True), ForeignKey("jobs.id")),
    Column("workflow", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason_code", Text, nullable=False),
    Column("reason_message", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column(
        "plan",
        JSONB,
        nullable=False,
        comment="endpoint and profile as they were when the request was made, without secrets",
    ),
    Column("certificate_id", UUID(as_uuid=True), ForeignKey("certificates.id")),
    Column("previous_certificate_id", UUID(as_uuid=True), ForeignKey("certificates.id")),
    Column("staged", JSONB, comment="what install or restore needs to go on; no key"),
    Column("flow_run_id", UUID(as_uuid=True), unique=True),
    Column("run_count", Integer, nullable=False, server_default="0"),
    Column("lease_owner", Text),
    _at("lease_until"),
    Column("cancel_requested", Boolean, nullable=False, server_default="false"),
    Column("ended_because", Text, comment="superseded, approval-expired …; null: by itself"),
    Column("approval", JSONB, comment="who may approve, who was asked, who decided"),
    _at("approval_until"),
    Column("waits_for", Text, comment="window: obtained, not installed yet"),
    _at("told_at"),
    Column(
        "is_pinned",
        Boolean,
        nullable=False,
        server_default="false",
        comment="an operator moved it: the sweep does not",
    ),
    Column(
        "is_latest",
        Boolean,
        nullable=False,
        server_default="true",
        comment="the active one of its endpoint, or else what it did last",
    ),
    _created(),
    _at("scheduled_at"),
    _at("started_at"),
    _at("ended_at"),
    CheckConstraint(f"workflow in ({_quoted(Workflow)})", name="workflow"),
    CheckConstraint(f"action in ({_quoted(Action)})", name="action"),
    CheckConstraint(f"status in ({_quoted(Status)})", name="status"),
    Index(
        "uq_requests_one_active_for_each_endpoint",
        "endpoint_id",
        unique=True,
        postgresql_where=text(f"status in ({_quoted(ACTIVE)})"),
    ),
    Index("ix_requests_endpoint_created", "endpoint_id", text("created_at desc")),
    Index(None, "job_id"),
    Index("ix_requests_status", "status", "lease_until"),
    Index("uq_requests_latest", "endpoint_id", unique=True, postgresql_where=text("is_latest")),
    Index("ix_requests_latest_status", "status", "ended_at", postgresql_where=text("is_latest")),
    Index("ix_requests_latest_job", "job_id", postgresql_where=text("is_latest")),
)

request_places = Table(
    "request_places",
    metadata,
    Column("request_id", UUID(as_uuid=True), ForeignKey("requests.id"), primary_key=True),
    Column("number", Integer, primary_key=True, comment="0: the endpoint's own"),
    Column("name", Text, nullable=False, comment="connector"),
    Column("staged", JSONB, comment="as in requests, of the further places"),
    Column("is_installed", Boolean, nullable=False, server_default="false"),
    Column("detail", Text, comment="what was done there, or why it was not"),
    comment="Where the certificate of a request is installed, if that is several places.",
)

job_members = Table(
    "job_members",
    metadata,
    Column("job_id", UUID(as_uuid=True), ForeignKey("jobs.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("location", Text, nullable=False),
    Column("wave", Integer),
    Column("shard", Integer),
    Column("request_id", UUID(as_uuid=True), ForeignKey("requests.id"), unique=True),
    Column("reason_code", Text, comment="why it does not take part"),
    Column("reason_message", Text),
    UniqueConstraint("job_id", "location"),
    Index(None, "job_id", "shard"),
    CheckConstraint(
        "(request_id is null) = (reason_code is not null)", name="takes_part_or_says_why"
    ),
    comment="The endpoints of a job in their order, frozen when it was made.",
)

steps = Table(
    "steps",
    metadata,
    Column("request_id", UUID(as_uuid=True), ForeignKey("requests.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("title", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("detail", Text),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("cause", Text),
    Column("remedy", Text),
    Column("retryable", Boolean),
    Column("error", Text, comment="class of the error, to count causes by"),
    Column("task_run_id", UUID(as_uuid=True)),
    _at("started_at"),
    _at("ended_at"),
    CheckConstraint(f"status in ({_quoted(StepStatus)})", name="status"),
    CheckConstraint(
        "status <> 'failed' or (cause is not null and remedy is not null"
        " and retryable is not null)",
        name="failed_says_why",
    ),
    CheckConstraint("status <> 'skipped' or detail is not null", name="skipped_says_why"),
)

step_attempts = Table(
    "step_attempts",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("request_id", UUID(as_uuid=True), ForeignKey("requests.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("run", Integer, nullable=False, comment="the request's run_count"),
    Column("status", Text, nullable=False),
    Column("detail", Text),
    Column("cause", Text),
    _at("started_at", nullable=False),
    _at("ended_at"),
    Index(None, "request_id", "number"),
    comment="History: one row for each time a step was tried.",
)

orders = Table(
    "orders",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True, server_default=text("gen_random_uuid()")),
    Column("request_id", UUID(as_uuid=True), ForeignKey("requests.id"), nullable=False),
    Column("key", Text, nullable=False, unique=True, comment="our reference, given to the CA"),
    Column("ca", Text, nullable=False),
    Column("order", JSONB, comment="null until the CA answered"),
    Column("csr_pem", Text),
    Column("key_id", UUID(as_uuid=True), ForeignKey("keys.id")),
    Column("is_dead", Boolean, nullable=False, server_default="false"),
    Column("dead_because", Text),
    _created(),
    _at("updated_at"),
    Index(
        "uq_orders_one_live_for_each_request",
        "request_id",
        unique=True,
        postgresql_where=text("not is_dead"),
    ),
)

journal = Table(
    "journal",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("request_id", UUID(as_uuid=True), ForeignKey("requests.id"), nullable=False),
    Column("action", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("intent", JSONB, nullable=False, server_default="{}"),
    Column("intent_at", DateTime(timezone=True), nullable=False, server_default=_Now),
    Column("outcome", JSONB),
    _at("outcome_at"),
    Column("run", Integer, nullable=False),
    UniqueConstraint("request_id", "action", "key"),
    Index("ix_journal_open", "intent_at", postgresql_where=text("outcome is null")),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column(
        "event_id",
        UUID(as_uuid=True),
        nullable=False,
        unique=True,
        server_default=text("gen_random_uuid()"),
        comment="what Prefect, webhooks and e-mails call this event; it never changes",
    ),
    Column("event", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("request_id", UUID(as_uuid=True), ForeignKey("requests.id")),
    Column("payload", JSONB, nullable=False),
    Column("once", Text, unique=True, comment="what may be told one time only, such as an expiry"),
    _created(),
    _at("emitted_at"),
    _at("routed_at"),
    Index("ix_outbox_unemitted", "id", postgresql_where=text("emitted_at is null")),
    Index("ix_outbox_unrouted", "id", postgresql_where=text("routed_at is null")),
    comment="Lifecycle events: emitted to Prefect, and routed to those who want to hear of them.",
)

notifications = Table(
    "notifications",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("outbox_id", BigInteger, ForeignKey("outbox.id"), nullable=False),
    Column("channel", Text, nullable=False, comment="connector that carries it"),
    Column("recipient", Text, nullable=False, comment="an address, or empty: the channel's own"),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("digest", Text, comment="messages of one digest, channel and recipient go as one"),
    Column("held_because", Text, comment="quiet hours or digest"),
    Column("due_at", DateTime(timezone=True), nullable=False, server_default=_Now),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("claimed_by", Text),
    _at("claimed_until"),
    Column("message_id", Text, comment="the same at each attempt, so that receivers can tell"),
    Column("subject", Text),
    Column("answer", Text, comment="what the receiving server said"),
    Column("last_error", Text),
    Column("remedy", Text),
    _created(),
    _at("ended_at"),
    CheckConstraint("status in ('pending', 'sent', 'failed', 'dropped')", name="status"),
    UniqueConstraint("outbox_id", "channel", "recipient"),
    Index("ix_notifications_pending", "due_at", postgresql_where=text("status = 'pending'")),
    comment="The delivery log: one row for each event and recipient.",
)

notification_settings = Table(
    "notification_settings",
    metadata,
    Column("is_only", Boolean, primary_key=True, server_default="true"),
    Column("settings", JSONB, nullable=False),
    _at("updated_at"),
    CheckConstraint("is_only", name="is_only"),
    comment="The account-wide rules, as applied; one row.",
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False, server_default=_Now),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("detail", JSONB, nullable=False, server_default="{}"),
    Column("seq", BigInteger, unique=True, comment="place in the chain, in order of commit"),
    Column("hash", Text, comment="SHA-256 over the hash before and this entry"),
    Index(None, "object"),
    comment="Append-only and hash-chained, by triggers of the migration.",
)

views = Table(
    "views",
    metadata,
    Column("name", Text, primary_key=True),
    Column("filters", ARRAY(Text), nullable=False, server_default="{}"),
    Column("sort", Text, nullable=False),
    Column("columns", ARRAY(Text), nullable=False, server_default="{}"),
    Column("help", Text, nullable=False, server_default=""),
    Column("saved_by", Text, nullable=False),
    _created(),
    _at("updated_at"),
    comment="Selections of endpoints that people named.",
)

reports = Table(
    "reports",
    metadata,
    Column("name", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("settings", JSONB, nullable=False, server_default="{}"),
    Column("cron", Text, nullable=False, server_default=""),
    Column("timezone", Text, nullable=False, server_default="UTC"),
    Column("saved_by", Text, nullable=False),
    _created(),
    _at("updated_at"),
    _at("made_at"),
    comment="Reports that people saved, and when each was made last on schedule.",
)

report_files = Table(
    "report_files",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True, server_default=text("gen_random_uuid()")),
    Column("report", Text, nullable=False),
    Column("file", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("made_at", DateTime(timezone=True), nullable=False, server_default=_Now),
    Index("ix_report_files_report", "report", "made_at"),
    comment="Files of reports, kept until they are mailed.",
)

budget_pauses = Table(
    "budget_pauses",
    metadata,
    Column("budget", Text, primary_key=True),
    Column("until", DateTime(timezone=True), nullable=False),
    Column("why", Text, nullable=False),
    comment="Budgets of CAs that asked to be left alone; the latest moment of each.",
)
