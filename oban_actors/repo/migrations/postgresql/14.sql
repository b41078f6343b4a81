-- up
ALTER TYPE {schema}.oban_job_state ADD VALUE IF NOT EXISTS 'suspended' BEFORE 'scheduled'

-- down
UPDATE {schema}.oban_jobs SET state = 'scheduled' WHERE state = 'suspended'
