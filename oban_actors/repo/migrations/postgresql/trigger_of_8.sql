CREATE OR REPLACE FUNCTION {schema}.oban_jobs_notify() RETURNS trigger AS $$
DECLARE
  channel text;
  notice json;
BEGIN
  IF NEW.state = 'available' THEN
    channel = {insert_channel};
    notice = json_build_object('queue', NEW.queue);
    PERFORM pg_notify(channel, notice::text);
  END IF;
  RETURN NULL;
END;
$$ LANGUAGE plpgsql

DROP TRIGGER IF EXISTS oban_notify ON {schema}.oban_jobs

CREATE TRIGGER oban_notify AFTER INSERT ON {schema}.oban_jobs
FOR EACH ROW EXECUTE PROCEDURE {schema}.oban_jobs_notify()
