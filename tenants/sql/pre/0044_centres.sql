-- Two centres: a new primary voids every grant before work resumes, and what the standbys have on disk can be asked.

-- The (system identifier, timeline) on which work was last resumed.
ALTER TABLE chukan.cell ADD COLUMN system text NOT NULL DEFAULT '';
ALTER TABLE chukan.cell ADD COLUMN timeline integer NOT NULL DEFAULT 0;

-- Who this server is. The timeline is the one that is written now: the control file has that of the last checkpoint.
CREATE FUNCTION chukan.whoami() RETURNS TABLE (system text, timeline integer)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY SELECT c.system_identifier::text,
                      ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::integer
    FROM pg_control_system() c;
END $$;

-- Called before anything is served from a primary that is new to the caller. The first call on a new (system identifier,
-- timeline) makes every grant void: should the failover have lost commits, an epoch might otherwise be given out twice.
-- Any further one finds that done, and is fenced. Returns whether this call was the first.
CREATE FUNCTION chukan.resume() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _me record;
  _seen record;
BEGIN
  SELECT w.system, w.timeline INTO _me FROM chukan.whoami() w;
  PERFORM 1 FROM chukan.leases l ORDER BY l.side, l.shard FOR UPDATE;
  SELECT c.system, c.timeline INTO _seen FROM chukan.cell c FOR NO KEY UPDATE;
  IF (_seen.system, _seen.timeline) = (_me.system, _me.timeline) THEN
    PERFORM chukan.fence(true);
    RETURN false;
  END IF;
  UPDATE chukan.cell SET system = _me.system, timeline = _me.timeline;
  -- By more than one: a lost timeline may have given out the next few already.
  UPDATE chukan.leases SET epoch = epoch + 1000, owner = NULL, until = '-infinity';
  RETURN true;
END $$;

-- What each standby has flushed, beside what this server has (bytes from the beginning of its log), whom commits wait
-- for by the settings, and whether for this one. One row without a name where there is no standby.
CREATE FUNCTION chukan.standings()
RETURNS TABLE (flushed bigint, waits_for text, name text, pid integer, sync text, standby_flushed bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint, current_setting('synchronous_standby_names'),
                      r.application_name, r.pid, r.sync_state, (r.flush_lsn - '0/0')::bigint
    FROM (SELECT 1) one LEFT JOIN pg_stat_replication r ON r.state = 'streaming';
END $$;

-- A role of its own may look at the standbys; it can log in nowhere and has no table.
DO $$
BEGIN
  BEGIN
    CREATE ROLE chukan_watch NOLOGIN;
  EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- another database of this server made it
  END;
  GRANT pg_monitor TO chukan_watch;
END $$;
GRANT USAGE ON SCHEMA chukan TO chukan_watch;

CALL chukan.entrust('whoami', 'chukan_fn', 'chukan_broker', 'chukan_app', 'chukan_steward');
CALL chukan.entrust('resume', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('standings', 'chukan_watch', 'chukan_broker');
