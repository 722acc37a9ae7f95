-- Common data takes effect at a stated time (DESIGN §7): beside the snapshot in force lie those that wait for theirs.
--
-- A row above cell.snapshot waits. It comes into force by itself at effective_at, judged by this server's clock, but only
-- once it is confirmed: once whoever publishes has read it back from every cell. What was put at once (effective_at NULL)
-- never waits. Rows of before this file are what they were.

ALTER TABLE chukan.snapshot ADD COLUMN effective_at timestamptz;
ALTER TABLE chukan.snapshot ADD COLUMN confirmed boolean NOT NULL DEFAULT true;
COMMENT ON COLUMN chukan.snapshot.confirmed IS 'whether every cell has it, so that it may become due';

-- The snapshot that is due and not yet taken, NULL where there is none.
CREATE FUNCTION chukan.due_snapshot() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT max(s.number) FROM chukan.cell c JOIN chukan.snapshot s ON s.number > c.snapshot
          WHERE s.confirmed AND s.effective_at <= clock_timestamp());
END $$;

-- The number in force, held by this transaction; -1, which nothing was ever decided on, where another one is due. That is
-- asked before the lock is taken, so that from then on nobody new stands in the way of whoever takes the due one.
CREATE FUNCTION chukan.held_snapshot() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _now bigint;
BEGIN
  IF chukan.due_snapshot() IS NOT NULL THEN
    RETURN -1;
  END IF;
  SELECT c.snapshot INTO _now FROM chukan.cell c FOR SHARE;
  RETURN _now;
END $$;

-- The two functions that re-check the snapshot, as before but for that.
DO $$
DECLARE
  _name text;
  _text text;
  _check CONSTANT text := 'SELECT c.snapshot INTO _now FROM chukan.cell c FOR SHARE;';
BEGIN
  FOREACH _name IN ARRAY ARRAY['provide', 'decide_provisions'] LOOP
    SELECT pg_get_functiondef(p.oid) INTO STRICT _text FROM pg_proc p
      WHERE p.pronamespace = 'chukan'::regnamespace AND p.proname = _name;
    IF length(_text) - length(replace(_text, _check, '')) <> length(_check) THEN
      RAISE EXCEPTION 'chukan.% does not check its snapshot as it did', _name;
    END IF;
    EXECUTE replace(_text, _check, '_now := chukan.held_snapshot();');
  END LOOP;
END $$;

-- Takes what is due and tells what there is from the snapshot in force upwards. Bodies whose numbers are in _have are
-- left out: whoever asks every second need not carry them each time. wait_s: seconds until a confirmed one is due.
CREATE FUNCTION chukan.snapshot_take(_have bigint[])
RETURNS TABLE (number bigint, body bytea, signature bytea, key text, at timestamptz, effective_at timestamptz,
               confirmed boolean, in_force boolean, wait_s double precision)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  IF chukan.due_snapshot() IS NOT NULL THEN
    -- Every provision in flight shares a lock on this row: it was decided on what is in force until now.
    PERFORM 1 FROM chukan.cell c FOR UPDATE;
    UPDATE chukan.cell c SET snapshot = d.number FROM (SELECT chukan.due_snapshot()) d(number)
      WHERE d.number IS NOT NULL;
    DELETE FROM chukan.snapshot s USING chukan.cell c WHERE s.number < c.snapshot - 100;
  END IF;
  RETURN QUERY SELECT s.number, CASE WHEN s.number = ANY (_have) THEN NULL ELSE s.body END, s.signature, s.key, s.at,
      s.effective_at, s.confirmed, s.number = c.snapshot,
      CASE WHEN s.number > c.snapshot AND s.confirmed
           THEN greatest(0, extract(epoch FROM s.effective_at - clock_timestamp()))::double precision END
    FROM chukan.cell c JOIN chukan.snapshot s ON s.number >= c.snapshot ORDER BY s.number;
END $$;

-- Makes the given snapshots what there is: the one without effective_at in force at once, the others waiting, and no
-- others. Those that are here already must be the very same. _known are the confirmed ones that the caller has seen and
-- replaces; any other stands in the way. CK003 where somebody else was quicker: read again. False when nothing changed.
CREATE FUNCTION chukan.snapshot_plan(
  _number bigint[], _body bytea[], _signature bytea[], _key text[], _effective_at timestamptz[], _confirmed boolean[],
  _known bigint[]
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _now bigint;
  _next bigint;
  _some bigint;
  _changed boolean := false;
BEGIN
  SELECT c.snapshot INTO _now FROM chukan.cell c FOR UPDATE;
  DELETE FROM chukan.snapshot s WHERE s.number > _now AND NOT s.confirmed AND NOT EXISTS (
    SELECT FROM unnest(_number, _signature) u(number, signature) WHERE u.number = s.number AND u.signature = s.signature);
  _changed := FOUND;
  IF EXISTS (SELECT FROM chukan.snapshot s WHERE s.number > _now AND s.confirmed AND s.number <> ALL (_number || _known))
     OR chukan.due_snapshot() IS NOT NULL
     OR EXISTS (SELECT FROM unnest(_number, _body, _signature, _key, _effective_at)
                       u(number, body, signature, key, effective_at)
                LEFT JOIN chukan.snapshot s ON s.number = u.number
                WHERE u.number < _now OR u.effective_at IS NOT NULL AND u.number = _now
                   OR CASE WHEN s.number IS NULL THEN u.number = _now
                      ELSE (s.body, s.signature, s.key) <> (u.body, u.signature, u.key)
                        OR u.number > _now AND s.effective_at IS DISTINCT FROM u.effective_at END) THEN
    PERFORM chukan.defect('a snapshot that is not newer');
  END IF;
  DELETE FROM chukan.snapshot s WHERE s.number > _now AND s.number <> ALL (_number);
  _changed := _changed OR FOUND;
  INSERT INTO chukan.snapshot AS s (number, body, signature, key, effective_at, confirmed)
  SELECT u.number, u.body, u.signature, u.key, u.effective_at, u.confirmed
  FROM unnest(_number, _body, _signature, _key, _effective_at, _confirmed)
       u(number, body, signature, key, effective_at, confirmed)
  ON CONFLICT (number) DO UPDATE SET confirmed = true WHERE excluded.confirmed AND NOT s.confirmed;
  GET DIAGNOSTICS _some = ROW_COUNT;
  _next := (SELECT max(u.number) FROM unnest(_number, _effective_at) u(number, effective_at) WHERE u.effective_at IS NULL);
  UPDATE chukan.cell SET snapshot = _next WHERE _next > _now;
  _changed := _changed OR FOUND OR _some > 0;
  DELETE FROM chukan.snapshot s WHERE s.number < greatest(_now, _next) - 100;
  PERFORM chukan.fence(NOT _changed);
  RETURN _changed;
END $$;

-- Says that every cell has a snapshot that waits here, so that it may become due; false when that was said before. Any
-- exchange may say it too, of one that another cell has as confirmed: so what a crash left half said is said in a second.
CREATE FUNCTION chukan.snapshot_confirm(_number bigint, _signature bytea) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  PERFORM 1 FROM chukan.cell c FOR SHARE;  -- not while a plan is being made
  UPDATE chukan.snapshot s SET confirmed = true
    WHERE s.number = _number AND s.signature = _signature AND NOT s.confirmed;
  IF FOUND THEN
    RETURN true;
  END IF;
  IF NOT EXISTS (SELECT FROM chukan.snapshot s WHERE s.number = _number AND s.signature = _signature) THEN
    PERFORM chukan.defect('no such snapshot waits');
  END IF;
  PERFORM chukan.fence(true);
  RETURN false;
END $$;

-- As before: the one way of a tool of the release before this. What waits is withdrawn by it, and must be published anew:
-- it was not derived from what is put in force here, and a kill switch must never be refused for its sake.
CREATE OR REPLACE FUNCTION chukan.snapshot_put(_number bigint, _body bytea, _signature bytea, _key text) RETURNS boolean
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
  DELETE FROM chukan.snapshot WHERE number > _now;
  INSERT INTO chukan.snapshot (number, body, signature, key) VALUES (_number, _body, _signature, _key);
  UPDATE chukan.cell SET snapshot = _number;
  DELETE FROM chukan.snapshot WHERE number < _number - 100;
  RETURN true;
END $$;

CALL chukan.entrust('due_snapshot', 'chukan_fn', '');
CALL chukan.entrust('held_snapshot', 'chukan_fn', '');
CALL chukan.entrust('snapshot_take', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('snapshot_plan', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('snapshot_confirm', 'chukan_fn', 'chukan_broker', 'chukan_steward');
