-- Enriched events that were done from the parameter `from_ts` on and before `to_ts`, in the order of their time.
--
--   bq query --use_legacy_sql=false --parameter='from_ts:TIMESTAMP:2025-01-01 00:00:00 UTC' \
--     --parameter='to_ts:TIMESTAMP:2025-01-02 00:00:00 UTC' < sql/enriched_events_by_time.sql
--
-- The range is one of the column that the table is partitioned by, so only the days in it are read, also where the table
-- refuses queries without such a range.
SELECT
  event_id,
  content_id,
  user_id,
  event_type,
  event_ts,
  duration_ms,
  device,
  content_type,
  length_seconds,
  engagement_seconds,
  engagement_pct
FROM engagement.engagement_events
WHERE event_ts >= @from_ts AND event_ts < @to_ts
ORDER BY event_ts, CAST(event_id AS INT64)
