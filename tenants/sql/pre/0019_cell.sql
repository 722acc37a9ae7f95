-- The cell's common data, its canary, its figures, and the deletion of keys whose time is over.

CREATE FUNCTION chukan.current_snapshot()
RETURNS TABLE (number bigint, body bytea, signature bytea, key text, at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT s.number, s.body, s.signature, s.key, s.at
    FROM chukan.cell c JOIN chukan.snapshot s ON s.number = c.snapshot;
END $$;

-- Only its number, 0 where there is none: whoever asks every second need not carry the body each time.
CREATE FUNCTION chukan.snapshot_number() RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT c.snapshot FROM chukan.cell c);
END $$;

-- Puts a snapshot in force. The same one again is welcome; an older one, or another under the same number, is refused.
-- Every provision in flight shares a lock on the cell's row, so it was decided on this one or comes back as 'again'.
CREATE FUNCTION chukan.snapshot_put(_number bigint, _body bytea, _signature bytea, _key text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _now bigint;
BEGIN
  SELECT c.snapshot INTO _now FROM chukan.cell c FOR UPDATE;
  IF EXISTS (SELECT FROM chukan.snapshot s WHERE s.number = _number AND s.body = _body AND s.signature = _signature
             AND s.key = _key AND _number = _now) THEN
    PERFORM chukan.fence(true);
    RETURN false;
  END IF;
  IF _number <= _now THEN
    PERFORM chukan.defect('a snapshot that is not newer');
  END IF;
  INSERT INTO chukan.snapshot (number, body, signature, key) VALUES (_number, _body, _signature, _key);
  UPDATE chukan.cell SET snapshot = _number;
  DELETE FROM chukan.snapshot WHERE number < _number - 100;
  RETURN true;
END $$;

-- A real commit: what hurts it hurts every request.
CREATE FUNCTION chukan.canary_sing() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE chukan.canary SET at = clock_timestamp();
END $$;

-- Open lines by side and state, with the oldest due time; at most 100,000 rows a side are counted.
CREATE FUNCTION chukan.backlog() RETURNS TABLE (side smallint, state smallint, count bigint, oldest_due timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT 1::smallint, w.state, count(*), min(w.due)
    FROM (SELECT i.state, i.due FROM chukan.inquiry_work i WHERE i.state IN (10, 20, 30, 40) LIMIT 100000) w
    GROUP BY w.state;
  RETURN QUERY SELECT 2::smallint, w.state, count(*), min(w.due)
    FROM (SELECT p.state, p.due FROM chukan.provision_work p WHERE p.state IN (40, 50) LIMIT 100000) w GROUP BY w.state;
END $$;

-- When the copies of each kind last changed or were loaded, for the next _count agencies after _after.
CREATE FUNCTION chukan.copy_ages(_after integer, _count integer)
RETURNS TABLE (agency integer, kind text, at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _agency integer;
BEGIN
  FOR _agency IN SELECT a.agency FROM chukan.agencies a WHERE a.agency > _after AND a.state = 'open'
                 ORDER BY a.agency LIMIT _count LOOP
    RETURN QUERY EXECUTE format(
      'SELECT %2$s, k.kind, max(k.at) FROM (SELECT m.kind, m.at FROM %1$I.copy_marks m
         UNION ALL SELECT l.kind, l.committed_at FROM %1$I.loads l WHERE l.state = ''committed'') k
       GROUP BY k.kind ORDER BY k.kind', chukan.schema_of(_agency), _agency);
  END LOOP;
END $$;

-- Deletes what has had its time at the next _count agencies after _after: inbox and idempotency keys of _keep ago, used
-- permits _keep after their expiry, outbox bytes that no line has to send any more. Returns the last agency seen, 0 at
-- the end. Each deletion takes at most _limit rows; what is left is taken the next time round.
CREATE FUNCTION chukan.forget(_after integer, _count integer, _keep interval, _limit integer) RETURNS integer
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
          AND NOT EXISTS (SELECT FROM chukan.provision_work w WHERE w.agency = k.agency AND w.id = k.id AND w.outbox)')
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

CALL chukan.entrust('current_snapshot', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('snapshot_number', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('snapshot_put', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('canary_sing', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('backlog', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('copy_ages', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('forget', 'chukan_fn', 'chukan_broker');
