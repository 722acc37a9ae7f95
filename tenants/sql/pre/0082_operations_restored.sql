-- Operations logs (操作記録) after a restore: the leaf of 0061, in the logs of 0064. And entries of an agency that is closed
-- or being moved no longer stand before those of others in the sequencer's batch.

-- Ends an operations log as it was restored, in the form of chukan.restored_leaf (0061); 100000 names the operators'. By an
-- administrator, before the cell is opened; returns the leaf's position, that of the first time where it is there.
CREATE FUNCTION chukan.operations_restored_leaf(_agency integer, _epoch integer, _size bigint, _root bytea) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '15s' AS $$
#variable_conflict use_column
DECLARE
  _schema text := chukan.operations_schema(_agency);
  _label bytea := chukan.restored_label(_epoch, _size);
  _leaf bytea := '\x02'::bytea || _root || _label || int8send(0) || decode(repeat('00', 32), 'hex');
  _seq bigint;
BEGIN
  IF octet_length(_root) <> 32 OR _epoch < 2 OR _size < 0 THEN
    PERFORM chukan.defect('a tree has a size and a root, and a restore an epoch');
  END IF;
  PERFORM pg_advisory_xact_lock(4851205431605);
  EXECUTE format('SELECT l.seq FROM %I.operation_log l WHERE l.label = $1', _schema) INTO _seq USING _label;
  IF _seq IS NULL THEN
    EXECUTE format('INSERT INTO %1$I.operation_log (seq, operation, label, leaf_data, leaf_hash)
                    SELECT coalesce(max(l.seq), 0) + 1, gen_random_uuid(), $1, $2, sha256(''\x00''::bytea || $2)
                    FROM %1$I.operation_log l RETURNING seq', _schema) INTO _seq USING _label, _leaf;
    -- A log without a hint gets one from the sequencer, which finds the leaf there.
    UPDATE chukan.operation_heads h SET seq = _seq WHERE h.agency = _agency;
  END IF;
  RETURN _seq;
END $$;

-- How many leaves each of these logs has; one that has no tables here is left out. By an administrator.
CREATE FUNCTION chukan.operations_lengths(_agency integer[]) RETURNS TABLE (agency integer, seq bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  FOREACH agency IN ARRAY _agency LOOP
    CONTINUE WHEN to_regclass(format('%I.operation_log', chukan.operations_schema(agency))) IS NULL;
    EXECUTE format('SELECT coalesce(max(l.seq), 0) FROM %I.operation_log l', chukan.operations_schema(agency)) INTO seq;
    RETURN NEXT;
  END LOOP;
END $$;

-- The leaves of restores of an operations log, in their order.
CREATE FUNCTION chukan.operations_restored(_agency integer) RETURNS TABLE (seq bigint, leaf_data bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM chukan.check_here(ARRAY[_agency]);
  RETURN QUERY EXECUTE format('SELECT l.seq, l.leaf_data FROM %I.operation_log l WHERE l.label >= $1 AND l.label <= $2
                               ORDER BY l.seq LIMIT 1000', chukan.operations_schema(_agency))
    USING convert_to('chukan restored leaf', 'UTF8'), convert_to('chukan restored leaf', 'UTF8') || decode(repeat('ff', 12), 'hex');
END $$;

-- As before (0064), but the batch is taken from what can have its place: entries of an agency that is not open wait and
-- are in nobody's way.
CREATE OR REPLACE FUNCTION chukan.operations_sequence(_limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _here integer[];
  _log record;
  _schema text;
  _head bigint;
  _placed uuid[];
  _done integer := 0;
BEGIN
  IF NOT pg_try_advisory_xact_lock(4851205431605) THEN
    RETURN -1;
  END IF;
  PERFORM chukan.operation_hints(50);
  _here := ARRAY(SELECT a.agency FROM chukan.agencies a WHERE a.agency IN (
      SELECT t.agency FROM (
        SELECT w.agency FROM chukan.operations_waiting w LEFT JOIN chukan.agencies o ON o.agency = w.agency
        WHERE NOT w.lost AND (o.state = 'open' OR w.agency = 100000) ORDER BY w.n LIMIT _limit) t)
    AND a.state = 'open' ORDER BY a.agency FOR KEY SHARE SKIP LOCKED) || 100000;
  FOR _log IN
    SELECT t.agency, array_agg(t.id ORDER BY t.n) AS ids FROM (
      SELECT w.agency, w.id, w.n FROM chukan.operations_waiting w
      WHERE NOT w.lost AND w.agency = ANY (_here) ORDER BY w.n LIMIT _limit) t GROUP BY t.agency ORDER BY t.agency
  LOOP
    _schema := chukan.operations_schema(_log.agency);
    EXECUTE format('SELECT coalesce(max(l.seq), 0) FROM %I.operation_log l', _schema) INTO _head;
    EXECUTE format(
      'WITH kept AS (INSERT INTO %I.operation_log (seq, operation, label, leaf_data, leaf_hash)
         SELECT $1 + l.place, l.operation, l.label, l.leaf, sha256(''\x00''::bytea || l.leaf)
         FROM chukan.operation_leaves($2, $3) l ORDER BY l.place RETURNING operation)
       SELECT array_agg(k.operation) FROM kept k', _schema) INTO _placed USING _head, _schema, _log.ids;
    DELETE FROM chukan.operations_waiting w WHERE w.agency = _log.agency AND w.id = ANY (_placed);
    UPDATE chukan.operations_waiting w SET lost = true WHERE w.agency = _log.agency AND w.id = ANY (_log.ids);
    UPDATE chukan.operation_heads h SET seq = _head + coalesce(cardinality(_placed), 0) WHERE h.agency = _log.agency;
    _done := _done + cardinality(_log.ids);
  END LOOP;
  RETURN _done;
END $$;

CALL chukan.entrust('operations_restored_leaf', 'chukan_fn', '');
CALL chukan.entrust('operations_lengths', 'chukan_fn', '');
CALL chukan.entrust('operations_restored', 'chukan_fn', 'chukan_broker');
