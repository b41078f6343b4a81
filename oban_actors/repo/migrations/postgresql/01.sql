-- up
DO $$
BEGIN
  IF to_regtype('{schema}.oban_job_state') IS NULL THEN
    CREATE TYPE {schema}.oban_job_state AS ENUM (
      'available', 'suspended', 'scheduled', 'executing',
      'retryable', 'completed', 'discarded', 'cancelled'
    );
  END IF;
END$$

CREATE TABLE IF NOT EXISTS {schema}.oban_jobs (
  id bigserial PRIMARY KEY,
  state {schema}.oban_job_state NOT NULL DEFAULT 'available',
  queue text NOT NULL DEFAULT 'default',
  worker text NOT NULL,
  args jsonb NOT NULL,
  errors jsonb[] NOT NULL DEFAULT ARRAY[]::jsonb[],
  attempt integer NOT NULL DEFAULT 0,
  max_attempts integer NOT NULL DEFAULT 20,
  inserted_at timestamp NOT NULL DEFAULT timezone('UTC', now()),
  scheduled_at timestamp NOT NULL DEFAULT timezone('UTC', now()),
  attempted_at timestamp,
  completed_at timestamp
)

CREATE INDEX IF NOT EXISTS oban_jobs_queue_index ON {schema}.oban_jobs (queue)

CREATE INDEX IF NOT EXISTS oban_jobs_state_index ON {schema}.oban_jobs (state)

CREATE INDEX IF NOT EXISTS oban_jobs_scheduled_at_index ON {schema}.oban_jobs (scheduled_at)

{trigger_of_1}

-- down
DROP TRIGGER IF EXISTS oban_notify ON {schema}.oban_jobs

DROP FUNCTION IF EXISTS {schema}.oban_jobs_notify()

DROP TABLE IF EXISTS {schema}.oban_jobs

DROP TYPE IF EXISTS {schema}.oban_job_state
