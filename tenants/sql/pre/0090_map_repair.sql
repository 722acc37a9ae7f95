-- Mending a damaged map of persons (0060), and what retention (保存期間) has still to delete, as a report.
--
-- A map follows from its log, so that nobody needs a backup of it: an operator's command makes it anew from the leaves,
-- holds its root against the one that was signed, and puts the pages here that are others. Where the leaves themselves
-- are not those that were signed, the agency's log is set aside: nothing is placed in it until a person has looked.

ALTER TABLE chukan.log_aside ADD COLUMN why text NOT NULL DEFAULT 'record' CHECK (why IN ('record', 'evidence'));
COMMENT ON COLUMN chukan.log_aside.why IS 'record: one that waits is missing; evidence: leaves are not those that were signed';

-- As before (0061), but a log that was set aside for its evidence stays so until its map was mended.
CREATE OR REPLACE FUNCTION chukan.resume_logs() RETURNS TABLE (agency integer, record uuid, at timestamptz)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  DELETE FROM chukan.log_aside a WHERE a.why = 'record' AND chukan.missing_record(
    a.agency, ARRAY(SELECT t.record FROM chukan.to_sequence t WHERE t.agency = a.agency ORDER BY t.n)) IS NULL;
  RETURN QUERY SELECT a.agency, a.record, a.at FROM chukan.log_aside a ORDER BY a.agency;
END $$;

-- The names of an agency's pages behind one (NULL: from the first on), and what each page's digest is.
CREATE FUNCTION chukan.map_names(_agency integer, _after text, _limit integer) RETURNS TABLE (path text, digest bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM chukan.check_here(ARRAY[_agency]);
  RETURN QUERY EXECUTE format('SELECT p.path, sha256(p.body) FROM %I.map_pages p WHERE $1 IS NULL OR p.path > $1 COLLATE "C"
                               ORDER BY p.path COLLATE "C" LIMIT $2', chukan.schema_of(_agency))
    USING _after, least(_limit, 10000);
END $$;

-- Puts pages in place and takes others away, while the last checkpoint is the one of _size leaves: 'mended', or 'moved'
-- where the log was signed on meanwhile, 'busy' where a signer is at work: it holds the same lock, so that no page changes
-- under a checkpoint that is being made.
CREATE FUNCTION chukan.map_mend(_agency integer, _size bigint, _path text[], _body bytea[], _gone text[]) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _schema text := chukan.schema_of(_agency);
  _last bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(4851205431603) THEN
    RETURN 'busy';
  END IF;
  PERFORM chukan.check_generation(ARRAY[_agency], NULL);
  EXECUTE format('SELECT max(c.size) FROM %I.checkpoints c', _schema) INTO _last;
  IF _last IS DISTINCT FROM _size THEN
    RETURN 'moved';
  END IF;
  EXECUTE format('DELETE FROM %I.map_pages p WHERE p.path = ANY ($1 COLLATE "C")', _schema) USING _gone;
  EXECUTE format('INSERT INTO %I.map_pages AS p (path, body) SELECT m.path, m.body FROM unnest($1, $2) m(path, body)
                  ON CONFLICT (path) DO UPDATE SET body = excluded.body', _schema) USING _path, _body;
  RETURN 'mended';
END $$;

-- Ends a mending, with the operator's act: a log that was set aside for its evidence goes on, or is set aside for it.
CREATE FUNCTION chukan.map_mended(_agency integer, _who text, _sound boolean) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM chukan.check_generation(ARRAY[_agency], NULL);
  IF _sound THEN
    DELETE FROM chukan.log_aside a WHERE a.agency = _agency AND a.why = 'evidence';
  ELSE
    -- No record is missing; one that is keeps its name.
    INSERT INTO chukan.log_aside AS a (agency, record, why)
      VALUES (_agency, '00000000-0000-0000-0000-000000000000', 'evidence')
      ON CONFLICT (agency) DO UPDATE SET why = 'evidence';
  END IF;
  PERFORM chukan.enter_operator(clock_timestamp(), _who, NULL, 'map.rebuild', 'agency',
                                CASE WHEN _sound THEN 'done' ELSE 'refused' END, NULL, NULL, 1);
  RETURN _sound;
END $$;

-- Deletes officers' sessions that ended before _before, at the next _count agencies behind _after, at most _limit of each;
-- returns the last agency seen, 0 at the end. (An officer's own next sign-in does it too; one who never comes back does not.)
CREATE FUNCTION chukan.purge_sessions(_after integer, _count integer, _before timestamptz, _limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _agency integer;
  _last integer := 0;
BEGIN
  FOR _agency IN SELECT a.agency FROM chukan.agencies a WHERE a.agency > _after AND a.state = 'open'
                 ORDER BY a.agency LIMIT _count LOOP
    EXECUTE format('DELETE FROM %1$I.officer_sessions s WHERE s.digest = ANY (ARRAY(
                      SELECT o.digest FROM %1$I.officer_sessions o WHERE o.until < $1 LIMIT $2))', chukan.schema_of(_agency))
      USING _before, _limit;
    _last := _agency;
  END LOOP;
  RETURN _last;
END $$;

-- What of an agency is over by the caller's clock and still there, by class (tenants/retention.py): at most 10,001 are
-- counted of each. Of what is never deleted (notices, operations) all are counted as far as that. Nothing is opened.
CREATE FUNCTION chukan.retention_over(
  _agency integer, _results timestamptz, _keys timestamptz, _files timestamptz, _facts timestamptz, _now timestamptz,
  _first date
) RETURNS TABLE (class text, over bigint, oldest timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _schema text := chukan.schema_of(_agency);
  _over timestamptz := _first::timestamp AT TIME ZONE 'Asia/Tokyo';
  _rule record;
BEGIN
  PERFORM chukan.check_here(ARRAY[_agency]);
  FOR _rule IN SELECT * FROM (VALUES
    ('results', 'SELECT w.updated_at FROM chukan.inquiry_work w WHERE w.agency = %2$s AND w.state BETWEEN 50 AND 89
       AND w.updated_at < $1'),
    ('keys', 'SELECT k.at FROM %1$I.inbox k WHERE k.at < $2 UNION ALL SELECT k.at FROM %1$I.idempotency k WHERE k.at < $2
       UNION ALL SELECT k.until FROM %1$I.permits_used k WHERE k.until < $2'),
    ('files', 'SELECT k.at FROM %1$I.files k WHERE k.at < $3'),
    ('facts', 'SELECT k.received_at FROM %1$I.acquisition_asks k WHERE k.received_at < $4'),
    ('sessions', 'SELECT k.until FROM %1$I.officer_sessions k WHERE k.until < $5'),
    ('records', 'SELECT k.at FROM %1$I.records k WHERE k.at < $6 AND k.month < $7'),
    ('lines', 'SELECT f.at FROM (SELECT o.at FROM %1$I.queries o ORDER BY o.id LIMIT 1) f WHERE f.at < $6
       UNION ALL SELECT f.at FROM (SELECT o.at FROM %1$I.provisions o ORDER BY o.id LIMIT 1) f WHERE f.at < $6
       UNION ALL SELECT f.at FROM (SELECT o.at FROM %1$I.permits o ORDER BY o.id LIMIT 1) f WHERE f.at < $6
       UNION ALL SELECT f.at FROM (SELECT o.at FROM %1$I.events o ORDER BY o.n LIMIT 1) f WHERE f.at < $6'),
    ('operations', 'SELECT o.at FROM %1$I.operation_log o'),
    ('notices', 'SELECT r.at FROM chukan.notice_read r WHERE r.agency = %2$s')
  ) r(class, found) LOOP
    RETURN QUERY EXECUTE format('SELECT $8, count(*), min(f.at) FROM (SELECT $1, $2, $3, $4, $5, $6, $7) g, LATERAL ('
                                || _rule.found || ' LIMIT 10001) f(at)', _schema, _agency)
      USING _results, _keys, _files, _facts, _now, _over, _first, _rule.class;
  END LOOP;
END $$;

CALL chukan.entrust('resume_logs', 'chukan_fn', '');
CALL chukan.entrust('map_names', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('map_mend', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('map_mended', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('purge_sessions', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('retention_over', 'chukan_fn', 'chukan_steward');

UPDATE chukan.agency_tables SET fn_rights = 'SELECT, INSERT, UPDATE, DELETE' WHERE name = 'map_pages';
UPDATE chukan.agency_tables SET fn_rights = 'SELECT, DELETE' WHERE name = 'officer_sessions';
DO $$
DECLARE
  _schema name;
  _table name;
BEGIN
  FOR _schema IN SELECT n.nspname FROM pg_namespace n WHERE n.nspname ~ '^a[0-9]{5}$' LOOP
    FOREACH _table IN ARRAY ARRAY['map_pages', 'officer_sessions'] LOOP
      IF to_regclass(format('%I.%I', _schema, _table)) IS NOT NULL THEN
        EXECUTE format('GRANT SELECT, DELETE ON %I.%I TO chukan_fn', _schema, _table);
      END IF;
    END LOOP;
  END LOOP;
END $$;
