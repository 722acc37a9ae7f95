-- A table that every agency has, beside those that 0053 names, is told of once: add_plain_table() writes down its rights,
-- and grant_agency() gives them to the agencies that are born, thawed or opened later. Nobody needs to write
-- grant_agency() anew for a further table.

CREATE TABLE chukan.agency_tables (
  name          name PRIMARY KEY,
  agency_rights text NOT NULL CHECK (agency_rights ~ '^[A-Z, ]+$'),
  fn_rights     text NOT NULL CHECK (fn_rights ~ '^[A-Z, ]+$')
);
ALTER TABLE chukan.agency_tables OWNER TO chukan_owner;

-- As before, and the rights are kept.
CREATE OR REPLACE FUNCTION chukan.add_plain_table(_table name, _agency_rights text, _fn_rights text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
  _schema name;
  _tablespace name;
  _count integer := 0;
BEGIN
  INSERT INTO chukan.agency_tables AS t (name, agency_rights, fn_rights) VALUES (_table, _agency_rights, _fn_rights)
    ON CONFLICT (name) DO UPDATE SET agency_rights = excluded.agency_rights, fn_rights = excluded.fn_rights;
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

-- As before (0053), and the tables that were told of.
CREATE OR REPLACE FUNCTION chukan.grant_agency(_agency integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _schema text := chukan.schema_of(_agency);
  _right record;
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA %1$I TO %1$I, chukan_fn', _schema);
  FOR _right IN SELECT * FROM (VALUES
    ('SELECT', ARRAY['queries', 'permits', 'answers', 'provisions', 'records', 'events', 'log', 'codes', 'statistics',
                     'tiles', 'checkpoints', 'cosignatures'],
      ARRAY[_schema]),
    ('SELECT, INSERT, UPDATE', ARRAY['idempotency', 'copy_marks', 'files'], ARRAY[_schema]),
    ('SELECT, INSERT, UPDATE, DELETE', ARRAY['copies', 'loads', 'load_parts', 'stage', 'holds', 'review_drafts'],
      ARRAY[_schema]),
    ('SELECT', ARRAY['queries', 'provisions', 'records', 'log', 'copies', 'holds', 'loads', 'copy_marks'],
      ARRAY['chukan_fn']),
    ('SELECT, DELETE', ARRAY['answers', 'outbox', 'inbox', 'idempotency', 'permits_used', 'files', 'statistics'],
      ARRAY['chukan_fn']),
    ('SELECT, INSERT, UPDATE', ARRAY['codes', 'cosignatures'], ARRAY['chukan_fn']),
    ('SELECT, INSERT', ARRAY['tiles', 'checkpoints'], ARRAY['chukan_fn'])
  ) g(rights, tables, roles) LOOP
    EXECUTE format('GRANT %s ON %s TO %s', _right.rights,
      (SELECT string_agg(format('%I.%I', _schema, t.name), ', ') FROM unnest(_right.tables) t(name)),
      (SELECT string_agg(format('%I', r.name), ', ') FROM unnest(_right.roles) r(name)));
  END LOOP;
  FOR _right IN SELECT t.name, t.agency_rights, t.fn_rights FROM chukan.agency_tables t
                WHERE to_regclass(format('%I.%I', _schema, t.name)) IS NOT NULL ORDER BY t.name LOOP
    EXECUTE format('GRANT %s ON %I.%I TO %I', _right.agency_rights, _schema, _right.name, _schema);
    EXECUTE format('GRANT %s ON %I.%I TO chukan_fn', _right.fn_rights, _schema, _right.name);
  END LOOP;
END $$;

GRANT SELECT ON chukan.agency_tables TO chukan_fn;
