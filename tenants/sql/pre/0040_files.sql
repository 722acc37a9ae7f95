-- Files of many lines that an agency sends (照会ファイル, 符号取得ファイル): one row a file, beside the lines themselves.
-- The lines of a query file are query lines like any others, in batches of 1,000 that are named after the file.

-- name and content are the agency's keyed digests: the same file again is found by its name and known by its content.
-- body is sealed under the row's id; refusals are line numbers, codes and pointers, never a value.
CREATE TABLE chukan_plain.files (
  id       uuid PRIMARY KEY,
  purpose  text NOT NULL CHECK (purpose IN ('queries', 'codes')),
  name     bytea NOT NULL CHECK (octet_length(name) = 32),
  content  bytea NOT NULL CHECK (octet_length(content) = 32),
  body     bytea NOT NULL,
  lines    integer NOT NULL CHECK (lines >= 0),
  refusals text NOT NULL DEFAULT '[]',
  state    text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'accepted')),
  tries    integer NOT NULL DEFAULT 1,
  at       timestamptz NOT NULL DEFAULT now(),
  UNIQUE (purpose, name)
);
ALTER TABLE chukan_plain.files OWNER TO chukan_owner;
ALTER TABLE chukan_plain.files ALTER body SET STORAGE EXTERNAL;

-- Makes a table of chukan_plain for the agencies that were born before it; birth() makes it for all others. Nobody waits:
-- the table is new, and lies in the tablespace of the agency's copies. Rights: of the agency's role, and of chukan_fn.
CREATE FUNCTION chukan.add_plain_table(_table name, _agency_rights text, _fn_rights text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
  _schema name;
  _tablespace name;
  _count integer := 0;
BEGIN
  FOR _schema, _tablespace IN
    SELECT n.nspname, t.spcname FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'copies'
    LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
    WHERE n.nspname ~ '^a[0-9]{5}$' AND to_regclass(format('%I.%I', n.nspname, _table)) IS NULL ORDER BY n.nspname
  LOOP
    PERFORM set_config('default_tablespace', coalesce(_tablespace, ''), true);
    EXECUTE format('CREATE TABLE %I.%I (LIKE chukan_plain.%I INCLUDING ALL)', _schema, _table, _table);
    PERFORM chukan.secure_table(substr(_schema, 2)::integer, _table, 'true');
    EXECUTE format('GRANT %s ON %I.%I TO %I', _agency_rights, _schema, _table, _schema);
    EXECUTE format('GRANT %s ON %I.%I TO chukan_fn', _fn_rights, _schema, _table);
    _count := _count + 1;
  END LOOP;
  RETURN _count;
END $$;

-- As before, and the files.
CREATE OR REPLACE FUNCTION chukan.grant_agency(_agency integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _schema text := chukan.schema_of(_agency);
  _right record;
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA %1$I TO %1$I, chukan_fn', _schema);
  FOR _right IN SELECT * FROM (VALUES
    ('SELECT', ARRAY['queries', 'permits', 'answers', 'provisions', 'records', 'events', 'log', 'codes'], ARRAY[_schema]),
    ('SELECT, INSERT, UPDATE', ARRAY['idempotency', 'copy_marks', 'files'], ARRAY[_schema]),
    ('SELECT, INSERT, UPDATE, DELETE', ARRAY['copies', 'loads', 'load_parts', 'stage', 'holds', 'review_drafts'], ARRAY[_schema]),
    ('SELECT', ARRAY['queries', 'provisions', 'records', 'log', 'copies', 'holds', 'loads', 'copy_marks'], ARRAY['chukan_fn']),
    ('SELECT, DELETE', ARRAY['answers', 'outbox', 'inbox', 'idempotency', 'permits_used', 'files'], ARRAY['chukan_fn']),
    ('SELECT, INSERT, UPDATE', ARRAY['codes'], ARRAY['chukan_fn'])
  ) g(rights, tables, roles) LOOP
    EXECUTE format('GRANT %s ON %s TO %s', _right.rights,
      (SELECT string_agg(format('%I.%I', _schema, t.name), ', ') FROM unnest(_right.tables) t(name)),
      (SELECT string_agg(format('%I', r.name), ', ') FROM unnest(_right.roles) r(name)));
  END LOOP;
END $$;

-- How many lines of the named batches of one agency stand in which state, with which outcome. A line that has been
-- purged for long has left the work table and is counted no more.
CREATE FUNCTION chukan.batch_progress(_agency integer, _batches uuid[])
RETURNS TABLE (state smallint, outcome smallint, count bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT w.state, w.outcome, count(*) FROM chukan.inquiry_work w
    WHERE w.agency = _agency AND w.batch = ANY (_batches) GROUP BY w.state, w.outcome ORDER BY w.state, w.outcome;
END $$;

-- As before, and the rows of files that were sent longer than sixty days before that.
CREATE OR REPLACE FUNCTION chukan.forget(_after integer, _count integer, _keep interval, _limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _agency integer;
  _last integer := 0;
  _rule record;
BEGIN
  IF _keep < interval '7 days' THEN
    PERFORM chukan.defect('keys are kept for seven days');
  END IF;
  FOR _agency IN SELECT a.agency FROM chukan.agencies a WHERE a.agency > _after ORDER BY a.agency LIMIT _count LOOP
    FOR _rule IN SELECT * FROM (VALUES
      ('inbox', 'k.at < $1'), ('idempotency', 'k.at < $1'), ('permits_used', 'k.until < $1'),
      ('outbox', 'NOT EXISTS (SELECT FROM chukan.inquiry_work w WHERE w.agency = k.agency AND w.id = k.id AND w.outbox)
          AND NOT EXISTS (SELECT FROM chukan.provision_work w WHERE w.agency = k.agency AND w.id = k.id AND w.outbox)'),
      ('files', 'k.at < $1 - interval ''60 days''')
    ) r(name, over) LOOP
      EXECUTE format(
        'DELETE FROM %1$I.%2$I d WHERE d.ctid = ANY (ARRAY(SELECT k.ctid FROM %1$I.%2$I k WHERE %3$s
           LIMIT %4$s))', chukan.schema_of(_agency), _rule.name, _rule.over, _limit)
        USING now() - _keep;
    END LOOP;
    _last := _agency;
  END LOOP;
  RETURN _last;
END $$;

CALL chukan.entrust('add_plain_table', 'chukan_owner', '');
CALL chukan.entrust('batch_progress', 'chukan_fn', 'chukan_broker');
DO $$
BEGIN
  PERFORM chukan.add_plain_table('files', 'SELECT, INSERT, UPDATE', 'SELECT, DELETE');
END $$;
