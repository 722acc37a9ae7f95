-- Closing an agency ends its delegations (委任): what it gave and what it took. Whoever it was for judges by the directory,
-- which says that it is closed; its own rows say so here, and stay ended whatever becomes of it later.
INSERT INTO chukan.agency_tables AS t (name, agency_rights, fn_rights)
  VALUES ('delegations', 'SELECT, INSERT, UPDATE', 'SELECT, UPDATE')
  ON CONFLICT (name) DO UPDATE SET fn_rights = excluded.fn_rights;
DO $$
DECLARE
  _schema name;
BEGIN
  FOR _schema IN SELECT n.nspname FROM pg_namespace n WHERE n.nspname ~ '^a[0-9]{5}$'
                 AND to_regclass(format('%I.delegations', n.nspname)) IS NOT NULL ORDER BY n.nspname LOOP
    EXECUTE format('GRANT UPDATE ON %I.delegations TO chukan_fn', _schema);
  END LOOP;
END $$;

-- As before (0046), and its delegations end in the same commit.
CREATE OR REPLACE FUNCTION chukan.close_agency(_agency integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
  _table text := format('%I.delegations', chukan.schema_of(_agency));
BEGIN
  PERFORM 1 FROM chukan.agencies a WHERE a.agency = _agency FOR UPDATE;
  PERFORM chukan.check_here(ARRAY[_agency]);
  UPDATE chukan.agencies SET state = 'closed' WHERE agency = _agency;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  IF to_regclass(_table) IS NOT NULL THEN
    EXECUTE format('UPDATE %s d SET state = ''ended'', at = now() WHERE d.state <> ''ended''', _table);
  END IF;
  RETURN true;
END $$;
