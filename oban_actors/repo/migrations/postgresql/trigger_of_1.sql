CREATE OR REPLACE FUNCTION {schema}.oban_jobs_notify() RETURNS trigger AS $$
DECLARE
  channel text;
  notice json;
BEGIN
  IF (TG_OP = 'INSERT') THEN
    channel = {insert_channel};
    notice = json_build_object('queue', NEW.queue, 'state', NEW.state);
    IF NEW.scheduled_at IS NOT NULL AND NEW.scheduled_at > now() AT TIME ZONE 'utc' THEN
      RETURN NULL;
    END IF;
  ELSE
    channel = {update_channel};
    notice = json_build_object(
      'queue', NEW.queue, 'new_state', NEW.state, 'old_state', OLD.state
    );
  END IF;
  PERFORM pg_notify(channel, notice::text);
  RETURN NULL;
END;
$$ LANGUAGE plpgsql

DROP TRIGGER IF EXISTS oban_notify ON {schema}.oban_jobs

CREATE TRIGGER oban_notify AFTER INSERT OR UPDATE OF state ON {schema}.oban_jobs
FOR EACH ROW EXECUTE PROCEDURE {schema}.oban_jobs_notify()
