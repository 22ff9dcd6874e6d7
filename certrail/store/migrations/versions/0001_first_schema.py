"""The first schema.

Revision: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('audit',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('actor', sa.Text(), nullable=False),
    sa.Column('action', sa.Text(), nullable=False),
    sa.Column('object', sa.Text(), nullable=False),
    sa.Column('detail', postgresql.JSONB(astext_type=Text()), server_default='{}', nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_audit'))
    )
    op.create_index(op.f('ix_audit_object'), 'audit', ['object'], unique=False)
    op.create_table('connectors',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('slug', sa.Text(), nullable=False, comment='block type; with the name, the block to load'),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('checked_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('check_ok', sa.Boolean(), nullable=True),
    sa.Column('check_message', sa.Text(), nullable=True),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_connectors')),
    comment='Names of connectors. Their settings are Prefect blocks.'
    )
    op.create_table('jobs',
    sa.Column('id', sa.UUID(), server_default=sa.text('gen_random_uuid()'), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('action', sa.Text(), nullable=False),
    sa.Column('status', sa.Text(), nullable=False),
    sa.Column('settings', postgresql.JSONB(astext_type=Text()), server_default='{}', nullable=False),
    sa.Column('flow_run_id', sa.UUID(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('scheduled_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('started_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_jobs')),
    sa.UniqueConstraint('name', name=op.f('uq_jobs_name'))
    )
    op.create_table('keys',
    sa.Column('id', sa.UUID(), nullable=False),
    sa.Column('purpose', sa.Text(), nullable=False, comment='leaf or acme-account'),
    sa.Column('sealed', sa.Text(), nullable=True, comment='null once destroyed'),
    sa.Column('algorithm', sa.Text(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('destroyed_at', sa.DateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_keys'))
    )
    op.create_table('acme_accounts',
    sa.Column('connector', sa.Text(), nullable=False),
    sa.Column('directory_url', sa.Text(), nullable=False),
    sa.Column('key_id', sa.UUID(), nullable=False),
    sa.Column('url', sa.Text(), server_default='', nullable=False, comment='empty until the CA answered'),
    sa.Column('contact', postgresql.ARRAY(Text()), server_default='{}', nullable=False),
    sa.Column('eab_kid', sa.Text(), server_default='', nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['key_id'], ['keys.id'], name=op.f('fk_acme_accounts_key_id')),
    sa.PrimaryKeyConstraint('connector', 'directory_url', name=op.f('pk_acme_accounts'))
    )
    op.create_table('certificates',
    sa.Column('id', sa.UUID(), server_default=sa.text('gen_random_uuid()'), nullable=False),
    sa.Column('fingerprint', sa.Text(), nullable=False),
    sa.Column('serial', sa.Text(), nullable=False),
    sa.Column('issuer', sa.Text(), nullable=False),
    sa.Column('common_name', sa.Text(), nullable=True),
    sa.Column('names', postgresql.ARRAY(Text()), nullable=False),
    sa.Column('key_kind', sa.Text(), nullable=False),
    sa.Column('not_before', sa.DateTime(timezone=True), nullable=False),
    sa.Column('not_after', sa.DateTime(timezone=True), nullable=False),
    sa.Column('chain_pem', sa.Text(), nullable=False),
    sa.Column('key_id', sa.UUID(), nullable=True, comment='null: not ours'),
    sa.Column('ca', sa.Text(), nullable=True, comment='connector that issued it; null: only observed'),
    sa.Column('revoked_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['key_id'], ['keys.id'], name=op.f('fk_certificates_key_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_certificates')),
    sa.UniqueConstraint('fingerprint', name=op.f('uq_certificates_fingerprint'))
    )
    op.create_index(op.f('ix_certificates_not_after'), 'certificates', ['not_after'], unique=False)
    op.create_table('profiles',
    sa.Column('id', sa.UUID(), server_default=sa.text('gen_random_uuid()'), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('workflow', sa.Text(), nullable=False),
    sa.Column('ca', sa.Text(), nullable=False),
    sa.Column('settings', postgresql.JSONB(astext_type=Text()), nullable=False, comment='the profile as applied, without secrets'),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("workflow in ('web-server', 'appliance', 'delivery')", name=op.f('ck_profiles_workflow')),
    sa.ForeignKeyConstraint(['ca'], ['connectors.name'], name=op.f('fk_profiles_ca')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_profiles')),
    sa.UniqueConstraint('name', name=op.f('uq_profiles_name'))
    )
    op.create_table('endpoints',
    sa.Column('id', sa.UUID(), server_default=sa.text('gen_random_uuid()'), nullable=False),
    sa.Column('location', sa.Text(), nullable=False),
    sa.Column('addresses', postgresql.ARRAY(Text()), server_default='{}', nullable=False),
    sa.Column('sni', sa.Text(), nullable=True),
    sa.Column('names', postgresql.ARRAY(Text()), server_default='{}', nullable=False),
    sa.Column('profile_id', sa.UUID(), nullable=True),
    sa.Column('target', sa.Text(), nullable=True),
    sa.Column('server', postgresql.JSONB(astext_type=Text()), server_default='{}', nullable=False),
    sa.Column('starttls', sa.Text(), nullable=True),
    sa.Column('tags', postgresql.ARRAY(Text()), server_default='{}', nullable=False),
    sa.Column('certificate_id', sa.UUID(), nullable=True),
    sa.Column('observed', postgresql.JSONB(astext_type=Text()), nullable=True, comment='what the last scan or test saw served'),
    sa.Column('observed_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('last_success_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('next_renewal_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['profile_id'], ['profiles.id'], name=op.f('fk_endpoints_profile_id')),
    sa.ForeignKeyConstraint(['target'], ['connectors.name'], name=op.f('fk_endpoints_target')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_endpoints')),
    sa.UniqueConstraint('location', name=op.f('uq_endpoints_location'))
    )
    op.create_index(op.f('ix_endpoints_profile_id'), 'endpoints', ['profile_id'], unique=False)
    op.create_index('ix_endpoints_tags', 'endpoints', ['tags'], unique=False, postgresql_using='gin')
    op.create_index(op.f('ix_endpoints_target'), 'endpoints', ['target'], unique=False)
    op.create_table('requests',
    sa.Column('id', sa.UUID(), server_default=sa.text('gen_random_uuid()'), nullable=False),
    sa.Column('endpoint_id', sa.UUID(), nullable=False),
    sa.Column('job_id', sa.UUID(), nullable=True),
    sa.Column('workflow', sa.Text(), nullable=False),
    sa.Column('action', sa.Text(), nullable=False),
    sa.Column('status', sa.Text(), nullable=False),
    sa.Column('reason_code', sa.Text(), nullable=False),
    sa.Column('reason_message', sa.Text(), nullable=False),
    sa.Column('requested_by', sa.Text(), nullable=False),
    sa.Column('plan', postgresql.JSONB(astext_type=Text()), nullable=False, comment='endpoint and profile as they were when the request was made, without secrets'),
    sa.Column('certificate_id', sa.UUID(), nullable=True),
    sa.Column('previous_certificate_id', sa.UUID(), nullable=True),
    sa.Column('staged', postgresql.JSONB(astext_type=Text()), nullable=True, comment='what install or restore needs to go on; no key'),
    sa.Column('flow_run_id', sa.UUID(), nullable=True),
    sa.Column('run_count', sa.Integer(), server_default='0', nullable=False),
    sa.Column('lease_owner', sa.Text(), nullable=True),
    sa.Column('lease_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('cancel_requested', sa.Boolean(), server_default='false', nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('scheduled_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('started_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("action in ('enroll', 'renew', 'reissue', 'redeploy')", name=op.f('ck_requests_action')),
    sa.CheckConstraint("status in ('not-configured', 'ready', 'approval-pending', 'automation-scheduled', 'automation-requested', 'in-progress', 'automation-successful', 'certificate-delivered', 'automation-failed', 'action-required', 'cancelled', 'auto-renew-scheduled', 'automation-at-risk')", name=op.f('ck_requests_status')),
    sa.CheckConstraint("workflow in ('web-server', 'appliance', 'delivery')", name=op.f('ck_requests_workflow')),
    sa.ForeignKeyConstraint(['certificate_id'], ['certificates.id'], name=op.f('fk_requests_certificate_id')),
    sa.ForeignKeyConstraint(['endpoint_id'], ['endpoints.id'], name=op.f('fk_requests_endpoint_id')),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_requests_job_id')),
    sa.ForeignKeyConstraint(['previous_certificate_id'], ['certificates.id'], name=op.f('fk_requests_previous_certificate_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_requests')),
    sa.UniqueConstraint('flow_run_id', name=op.f('uq_requests_flow_run_id'))
    )
    op.create_index('ix_requests_endpoint_created', 'requests', ['endpoint_id', sa.literal_column('created_at desc')], unique=False)
    op.create_index(op.f('ix_requests_job_id'), 'requests', ['job_id'], unique=False)
    op.create_index('ix_requests_status', 'requests', ['status', 'lease_until'], unique=False)
    op.create_index('uq_requests_one_active_for_each_endpoint', 'requests', ['endpoint_id'], unique=True, postgresql_where=sa.text("status in ('approval-pending', 'automation-scheduled', 'automation-requested', 'in-progress')"))
    op.create_table('journal',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('request_id', sa.UUID(), nullable=False),
    sa.Column('action', sa.Text(), nullable=False),
    sa.Column('key', sa.Text(), nullable=False),
    sa.Column('intent', postgresql.JSONB(astext_type=Text()), server_default='{}', nullable=False),
    sa.Column('intent_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('outcome', postgresql.JSONB(astext_type=Text()), nullable=True),
    sa.Column('outcome_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('run', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['request_id'], ['requests.id'], name=op.f('fk_journal_request_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_journal')),
    sa.UniqueConstraint('request_id', 'action', 'key', name=op.f('uq_journal_request_id_action_key'))
    )
    op.create_index('ix_journal_open', 'journal', ['intent_at'], unique=False, postgresql_where=sa.text('outcome is null'))
    op.create_table('orders',
    sa.Column('id', sa.UUID(), server_default=sa.text('gen_random_uuid()'), nullable=False),
    sa.Column('request_id', sa.UUID(), nullable=False),
    sa.Column('key', sa.Text(), nullable=False, comment='our reference, given to the CA'),
    sa.Column('ca', sa.Text(), nullable=False),
    sa.Column('order', postgresql.JSONB(astext_type=Text()), nullable=True, comment='null until the CA answered'),
    sa.Column('csr_pem', sa.Text(), nullable=True),
    sa.Column('key_id', sa.UUID(), nullable=True),
    sa.Column('is_dead', sa.Boolean(), server_default='false', nullable=False),
    sa.Column('dead_because', sa.Text(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['key_id'], ['keys.id'], name=op.f('fk_orders_key_id')),
    sa.ForeignKeyConstraint(['request_id'], ['requests.id'], name=op.f('fk_orders_request_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_orders')),
    sa.UniqueConstraint('key', name=op.f('uq_orders_key'))
    )
    op.create_index('uq_orders_one_live_for_each_request', 'orders', ['request_id'], unique=True, postgresql_where=sa.text('not is_dead'))
    op.create_table('outbox',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('event', sa.Text(), nullable=False),
    sa.Column('resource', sa.Text(), nullable=False),
    sa.Column('request_id', sa.UUID(), nullable=True),
    sa.Column('payload', postgresql.JSONB(astext_type=Text()), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('sent_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('attempts', sa.Integer(), server_default='0', nullable=False),
    sa.Column('next_attempt_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('last_error', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['request_id'], ['requests.id'], name=op.f('fk_outbox_request_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_outbox'))
    )
    op.create_index('ix_outbox_unsent', 'outbox', ['id'], unique=False, postgresql_where=sa.text('sent_at is null'))
    op.create_table('step_attempts',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('request_id', sa.UUID(), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('run', sa.Integer(), nullable=False, comment="the request's run_count"),
    sa.Column('status', sa.Text(), nullable=False),
    sa.Column('detail', sa.Text(), nullable=True),
    sa.Column('cause', sa.Text(), nullable=True),
    sa.Column('started_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['request_id'], ['requests.id'], name=op.f('fk_step_attempts_request_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_step_attempts')),
    comment='History: one row for each time a step was tried.'
    )
    op.create_index(op.f('ix_step_attempts_request_id_number'), 'step_attempts', ['request_id', 'number'], unique=False)
    op.create_table('steps',
    sa.Column('request_id', sa.UUID(), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('title', sa.Text(), nullable=False),
    sa.Column('status', sa.Text(), nullable=False),
    sa.Column('detail', sa.Text(), nullable=True),
    sa.Column('attempts', sa.Integer(), server_default='0', nullable=False),
    sa.Column('cause', sa.Text(), nullable=True),
    sa.Column('remedy', sa.Text(), nullable=True),
    sa.Column('retryable', sa.Boolean(), nullable=True),
    sa.Column('error', sa.Text(), nullable=True, comment='class of the error, to count causes by'),
    sa.Column('task_run_id', sa.UUID(), nullable=True),
    sa.Column('started_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("status <> 'failed' or (cause is not null and remedy is not null and retryable is not null)", name=op.f('ck_steps_failed_says_why')),
    sa.CheckConstraint("status <> 'skipped' or detail is not null", name=op.f('ck_steps_skipped_says_why')),
    sa.CheckConstraint("status in ('pending', 'running', 'completed', 'skipped', 'failed', 'cancelled')", name=op.f('ck_steps_status')),
    sa.ForeignKeyConstraint(['request_id'], ['requests.id'], name=op.f('fk_steps_request_id')),
    sa.PrimaryKeyConstraint('request_id', 'number', name=op.f('pk_steps'))
    )
    # ### end Alembic commands ###
    # Endpoints and certificates point at each other, so this key comes last.
    op.create_foreign_key(
        op.f("fk_endpoints_certificate_id"), "endpoints", "certificates", ["certificate_id"], ["id"]
    )
