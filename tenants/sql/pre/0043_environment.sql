-- Which environment (環境) a cell belongs to: production, or a sandbox (検証環境), whose people are all synthetic. It is
-- stamped when the cell is prepared (migrate.py) and only while there is no common data; a copy of a cell's files or a
-- dump of it carries the stamp along, so that a sandbox refuses production's data wherever it came from.

ALTER TABLE chukan.cell ADD COLUMN environment text NOT NULL DEFAULT 'production'
  CHECK (environment IN ('production', 'sandbox'));

CREATE FUNCTION chukan.environment() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT c.environment FROM chukan.cell c);
END $$;

CALL chukan.entrust('environment', 'chukan_fn', 'chukan_broker', 'chukan_app', 'chukan_steward');
