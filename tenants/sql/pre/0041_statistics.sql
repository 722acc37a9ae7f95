-- Statistics (統計) of provision records: counted in the commit that writes the records, folded later.
--
-- Insert-only: a set adds rows of its own and never touches another's, so that no two sets in flight ever wait for each
-- other's count. What a row says in the clear is less than what the work rows and events already say of each line: a
-- month, a side, an outcome, and how many. Procedure (事務手続) and kind stay sealed in the records: a digest of them
-- would tell by its frequency what it stands for. Records that were written before this table came are not counted.

CREATE TABLE chukan.statistics (
  agency    integer NOT NULL,
  month     date NOT NULL,
  side      smallint NOT NULL CHECK (side IN (1, 2)),
  outcome   smallint NOT NULL,
  amendment boolean NOT NULL,
  count     bigint NOT NULL CHECK (count > 0)
) PARTITION BY LIST (agency);
COMMENT ON COLUMN chukan.statistics.month IS 'first day of the month (JST) that the record itself names';
COMMENT ON COLUMN chukan.statistics.amendment IS 'whether the counted records amend others';
ALTER TABLE chukan.statistics OWNER TO chukan_owner;
ALTER TABLE chukan.statistics ENABLE ROW LEVEL SECURITY;
ALTER TABLE chukan.statistics FORCE ROW LEVEL SECURITY;
CREATE POLICY fn ON chukan.statistics TO chukan_fn USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON chukan.statistics TO chukan_fn;

-- As before, and the statistics.
CREATE OR REPLACE FUNCTION chukan.grant_agency(_agency integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _schema text := chukan.schema_of(_agency);
  _right record;
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA %1$I TO %1$I, chukan_fn', _schema);
  FOR _right IN SELECT * FROM (VALUES
    ('SELECT', ARRAY['queries', 'permits', 'answers', 'provisions', 'records', 'events', 'log', 'codes', 'statistics'],
      ARRAY[_schema]),
    ('SELECT, INSERT, UPDATE', ARRAY['idempotency', 'copy_marks', 'files'], ARRAY[_schema]),
    ('SELECT, INSERT, UPDATE, DELETE', ARRAY['copies', 'loads', 'load_parts', 'stage', 'holds', 'review_drafts'],
      ARRAY[_schema]),
    ('SELECT', ARRAY['queries', 'provisions', 'records', 'log', 'copies', 'holds', 'loads', 'copy_marks'],
      ARRAY['chukan_fn']),
    ('SELECT, DELETE', ARRAY['answers', 'outbox', 'inbox', 'idempotency', 'permits_used', 'files', 'statistics'],
      ARRAY['chukan_fn']),
    ('SELECT, INSERT, UPDATE', ARRAY['codes'], ARRAY['chukan_fn'])
  ) g(rights, tables, roles) LOOP
    EXECUTE format('GRANT %s ON %s TO %s', _right.rights,
      (SELECT string_agg(format('%I.%I', _schema, t.name), ', ') FROM unnest(_right.tables) t(name)),
      (SELECT string_agg(format('%I', r.name), ', ') FROM unnest(_right.roles) r(name)));
  END LOOP;
END $$;

-- Makes a leaf of a parent for the agencies that were born before it; birth() makes it for all others. Like
-- add_plain_table(), and attached.
CREATE FUNCTION chukan.add_leaf(_table name, _agency_rights text, _fn_rights text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
  _schema name;
  _tablespace name;
  _agency integer;
  _count integer := 0;
BEGIN
  FOR _schema, _tablespace IN
    SELECT n.nspname, t.spcname FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'copies'
    LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
    WHERE n.nspname ~ '^a[0-9]{5}$' AND to_regclass(format('%I.%I', n.nspname, _table)) IS NULL ORDER BY n.nspname
  LOOP
    _agency := substr(_schema, 2)::integer;
    PERFORM set_config('default_tablespace', coalesce(_tablespace, ''), true);
    EXECUTE format('CREATE TABLE %I.%I (LIKE chukan.%I INCLUDING ALL)', _schema, _table, _table);
    PERFORM chukan.secure_table(_agency, _table, format('agency = %s', _agency));
    EXECUTE format('ALTER TABLE chukan.%I ATTACH PARTITION %I.%I FOR VALUES IN (%s)', _table, _schema, _table, _agency);
    EXECUTE format('GRANT %s ON %I.%I TO %I', _agency_rights, _schema, _table, _schema);
    EXECUTE format('GRANT %s ON %I.%I TO chukan_fn', _fn_rights, _schema, _table);
    _count := _count + 1;
  END LOOP;
  RETURN _count;
END $$;

-- put_records(), and the same records counted: the one way in which a set writes records.
CREATE FUNCTION chukan.put_counted_records(
  _side smallint, _outcome smallint[], _agency integer[], _line uuid[], _go boolean[],
  _id uuid[], _label bytea[], _month date[], _sealed bytea[], _commitment bytea[], _amends uuid[]
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  IF NOT true = ANY (_go) OR array_remove(_id, NULL) = '{}' THEN
    RETURN;  -- no row brings a record: a statement less to plan
  END IF;
  PERFORM chukan.put_records(_agency, _line, _go, _id, _label, _month, _sealed, _commitment, _amends);
  INSERT INTO chukan.statistics (agency, month, side, outcome, amendment, count)
  SELECT u.agency, u.month, _side, u.outcome, u.amends IS NOT NULL, count(*)
  FROM unnest(_agency, _go, _outcome, _id, _month, _amends) u(agency, go, outcome, id, month, amends)
  WHERE u.go AND u.id IS NOT NULL
  GROUP BY u.agency, u.month, u.outcome, u.amends IS NOT NULL ORDER BY u.agency;
END $$;

-- The set functions that write records, as before but for that call; each has _outcome[] beside its records.
DO $$
DECLARE
  _name text;
  _side integer;
  _calls integer;
  _text text;
  _call CONSTANT text := 'chukan\.put_records\((_l)?_agency,';
BEGIN
  FOR _name, _side, _calls IN VALUES
    ('accept', 1, 1), ('step_inquiries', 1, 1), ('deliver_answers', 1, 2),
    ('provide', 2, 1), ('settle_provisions', 2, 1), ('decide_provisions', 2, 1)
  LOOP
    SELECT pg_get_functiondef(p.oid) INTO STRICT _text FROM pg_proc p
      WHERE p.pronamespace = 'chukan'::regnamespace AND p.proname = _name;
    IF regexp_count(_text, _call) <> _calls THEN
      RAISE EXCEPTION 'chukan.% does not write its records as it did', _name;
    END IF;
    EXECUTE regexp_replace(_text, _call,
      format('chukan.put_counted_records(%s::smallint, \1_outcome, \1_agency,', _side), 'g');
  END LOOP;
END $$;

-- Folds the rows of the next _count open agencies after _after: rows that count the same become one. Returns the last
-- agency seen, 0 at the end, and 0 where another process is at it. One statement an agency, so a reader sees the rows of
-- before or the one of after, and always the same sum; a set that inserts meanwhile is not waited for. At most _limit
-- rows of an agency; what is left is folded the next time round.
CREATE FUNCTION chukan.fold_statistics(_after integer, _count integer, _limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _agency integer;
  _last integer := 0;
BEGIN
  IF NOT pg_try_advisory_xact_lock(4851205431604) THEN
    RETURN 0;
  END IF;
  FOR _agency IN SELECT a.agency FROM chukan.agencies a WHERE a.agency > _after AND a.state = 'open'
                 ORDER BY a.agency LIMIT _count LOOP
    EXECUTE format(
      'WITH gone AS (
         DELETE FROM %1$I.statistics d WHERE d.ctid = ANY (ARRAY(
           SELECT s.ctid FROM (SELECT month, side, outcome, amendment FROM %1$I.statistics
                               GROUP BY month, side, outcome, amendment HAVING count(*) > 1) g
           JOIN %1$I.statistics s USING (month, side, outcome, amendment) LIMIT %3$s))
         RETURNING d.month, d.side, d.outcome, d.amendment, d.count
       )
       INSERT INTO chukan.statistics (agency, month, side, outcome, amendment, count)
       SELECT %2$s, g.month, g.side, g.outcome, g.amendment, sum(g.count) FROM gone g
       GROUP BY g.month, g.side, g.outcome, g.amendment',
      chukan.schema_of(_agency), _agency, _limit);
    _last := _agency;
  END LOOP;
  RETURN _last;
END $$;

CALL chukan.entrust('add_leaf', 'chukan_owner', '');
CALL chukan.entrust('put_counted_records', 'chukan_fn', '');
CALL chukan.entrust('fold_statistics', 'chukan_fn', 'chukan_broker');
DO $$
BEGIN
  PERFORM chukan.add_leaf('statistics', 'SELECT', 'SELECT, DELETE');
END $$;
