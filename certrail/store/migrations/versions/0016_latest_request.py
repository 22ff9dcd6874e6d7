"""An endpoint shows the request that is active, and keeps it when another one is refused.

Revision: 0016
"""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# A trigger fires before `on conflict do nothing` skips the row, and only what fires before
# can keep two rows from being the latest: so the active one never gives way. One statement
# looks at it and changes it, since another transaction may open it again in between.
_FUNCTIONS = """
create or replace function certrail_request_is_latest() returns trigger language plpgsql as $$
begin
  update requests set is_latest = false
    where endpoint_id = new.endpoint_id and is_latest
    and status not in ('approval-pending', 'automation-scheduled', 'automation-requested', 'in-progress');
  if exists (select from requests where endpoint_id = new.endpoint_id and is_latest) then
    new.is_latest := false;
  end if;
  return new;
end $$;

create function certrail_request_is_latest_again() returns trigger language plpgsql as $$
begin
  update requests set is_latest = false where endpoint_id = new.endpoint_id and is_latest;
  new.is_latest := true;
  return new;
end $$;
create trigger request_is_latest_again before update of status on requests for each row
  when (
    not old.is_latest
    and new.status in ('approval-pending', 'automation-scheduled', 'automation-requested', 'in-progress')
  )
  execute function certrail_request_is_latest_again();
"""

_MEND = (
    """
    update requests set is_latest = false where is_latest and endpoint_id in (
      select endpoint_id from requests where not is_latest
      and status in ('approval-pending', 'automation-scheduled', 'automation-requested', 'in-progress')
    )
    """,
    """
    update requests set is_latest = true where not is_latest
      and status in ('approval-pending', 'automation-scheduled', 'automation-requested', 'in-progress')
    """,
    """
    update requests set is_latest = true where id in (
      select distinct on (endpoint_id) id from requests r
      where not exists (select from requests l where l.endpoint_id = r.endpoint_id and l.is_latest)
      order by endpoint_id, created_at desc, id desc
    )
    """,
)


def upgrade() -> None:
    for statement in _MEND:
        op.execute(statement)
    op.execute(_FUNCTIONS)
    op.alter_column(
        "requests",
        "is_latest",
        comment="the active one of its endpoint, or else what it did last",
        existing_comment="the endpoint has no newer one",
    )
