-- up
DROP FUNCTION IF EXISTS {schema}.oban_wrap_id(bigint)

-- down
{wrap_id}
