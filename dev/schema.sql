-- The two tables of the publishing platform. engagement_events carries no foreign key: an event may reach the log before
-- its content does, and the processor has to cope with that.
CREATE TABLE content (
    id             uuid PRIMARY KEY,
    slug           text,
    title          text,
    content_type   text CHECK (content_type IN ('podcast', 'newsletter', 'video')),
    length_seconds integer,
    publish_ts     timestamptz
);

CREATE TABLE engagement_events (
    id          bigserial PRIMARY KEY,
    content_id  uuid,
    user_id     uuid,
    event_type  text NOT NULL CHECK (event_type IN ('play', 'pause', 'finish', 'click')),
    event_ts    timestamptz NOT NULL,
    duration_ms integer,
    device      text,
    raw_payload jsonb
);
