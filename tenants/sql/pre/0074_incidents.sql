-- Incidents (漏えい等事案): what operators wrote down about one, step by step, and how many persons and records of an agency
-- a period touches at most. Only labels and instants are counted, which are in the clear; who the persons are, and what
-- kinds, only the agency can tell with its keys (tenants/affected.py).

CREATE TABLE chukan.incidents (
  n    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id   uuid NOT NULL,
  step text NOT NULL CHECK (step IN ('open', 'amend', 'reported', 'close')),
  who  text NOT NULL CHECK (length(who) BETWEEN 1 AND 200),
  body jsonb NOT NULL,
  at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX incidents_once ON chukan.incidents (id, step) WHERE step IN ('open', 'close');
ALTER TABLE chukan.incidents OWNER TO chukan_fn;
REVOKE UPDATE, DELETE, TRUNCATE ON chukan.incidents FROM chukan_fn;

-- Enters a step and, in the same commit, the operator's act. Returns 'entered'; 'known' for a second opening or closing;
-- 'unknown' for a step of an incident that was never opened; 'closed' for one after the closing.
CREATE FUNCTION chukan.incident_enter(_id uuid, _step text, _who text, _body text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _steps text[] := ARRAY(SELECT i.step FROM chukan.incidents i WHERE i.id = _id);
BEGIN
  IF _step = ANY (_steps) AND _step IN ('open', 'close') THEN
    PERFORM chukan.fence(true);
    RETURN 'known';
  ELSIF 'close' = ANY (_steps) THEN
    RETURN 'closed';
  ELSIF _step <> 'open' AND NOT 'open' = ANY (_steps) THEN
    RETURN 'unknown';
  END IF;
  INSERT INTO chukan.incidents (id, step, who, body) VALUES (_id, _step, _who, _body::jsonb);
  PERFORM chukan.enter_operator(clock_timestamp(), _who, NULL, 'incident.' || _step, 'incident', 'done', NULL, _id, 1);
  RETURN 'entered';
END $$;

-- All steps of the newest incidents, in their order.
CREATE FUNCTION chukan.incident_steps(_limit integer)
RETURNS TABLE (n bigint, id uuid, step text, who text, body text, at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT t.n, t.id, t.step, t.who, t.body::text, t.at FROM (
    SELECT i.* FROM chukan.incidents i ORDER BY i.n DESC LIMIT least(_limit, 10000)) t ORDER BY t.n;
END $$;

-- Of one agency: records closed in a period, and the labels among them. An upper bound: kinds are not looked at, and a
-- person whom the agency does not know counts once a record.
CREATE FUNCTION chukan.incident_counts(_agency integer, _from timestamptz, _until timestamptz)
RETURNS TABLE (records bigint, persons bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM chukan.check_here(ARRAY[_agency]);
  RETURN QUERY EXECUTE format('SELECT count(*), count(DISTINCT r.label) FROM %I.records r
                               WHERE r.agency = %s AND r.at >= $1 AND r.at < $2', chukan.schema_of(_agency), _agency)
    USING _from, _until;
END $$;

CALL chukan.entrust('incident_enter', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('incident_steps', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('incident_counts', 'chukan_fn', 'chukan_steward');
