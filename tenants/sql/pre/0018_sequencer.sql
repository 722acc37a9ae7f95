-- The sequencer: gives records their place in their agency's log. One at a time in a cell, by a lock that ends with the
-- commit; a second one finds the lock taken and goes away. The key of log is the last guard against forks.

-- Leaf data, 105 bytes: version 0x01 ‖ commitment (32) ‖ label (32) ‖ ordinal of this label (u64, from 0) ‖ previous
-- leaf hash of this label (32, zero where it is the first). Leaf hash: SHA-256(0x00 ‖ leaf data), RFC 9162.
--
-- One agency's records come label by label, each label's in order, so its chain is followed with two variables; places
-- are given by the order of arrival. What is appended is collected over all agencies and inserted at once.

-- The leaves of one agency's waiting records: which place in the batch each has, and its leaf data.
CREATE FUNCTION chukan.make_leaves(_agency integer, _record uuid[])
RETURNS TABLE (place bigint, record uuid, label bytea, leaf bytea)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _row record;
  _label bytea;
  _ordinal bigint;
  _previous bytea;
BEGIN
  FOR _row IN EXECUTE format(
    'SELECT t.record, t.place, r.commitment, r.label, p.leaf_data, p.leaf_hash
     FROM unnest($1) WITH ORDINALITY t(record, place)
     JOIN %1$I.records r ON r.agency = %2$s AND r.id = t.record
     LEFT JOIN LATERAL (SELECT l.leaf_data, l.leaf_hash FROM %1$I.log l WHERE l.agency = %2$s AND l.label = r.label
                        ORDER BY l.seq DESC LIMIT 1) p ON true
     ORDER BY r.label, t.place', chukan.schema_of(_agency), _agency) USING _record
  LOOP
    IF _label IS DISTINCT FROM _row.label THEN
      _label := _row.label;
      _previous := coalesce(_row.leaf_hash, decode(repeat('00', 32), 'hex'));
      -- The ordinal is the eight bytes after version, commitment and label.
      _ordinal := coalesce(('x' || encode(substr(_row.leaf_data, 66, 8), 'hex'))::bit(64)::bigint + 1, 0);
    END IF;
    place := _row.place;
    record := _row.record;
    label := _label;
    leaf := '\x01'::bytea || _row.commitment || _label || int8send(_ordinal) || _previous;
    RETURN NEXT;
    _previous := sha256('\x00'::bytea || leaf);
    _ordinal := _ordinal + 1;
  END LOOP;
END $$;

-- Takes up to _limit waiting records; returns how many, or -1 when another one holds the lock.
CREATE FUNCTION chukan.sequence(_owner text, _limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _taken bigint[];
  _done bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(4851205431602) THEN
    RETURN -1;
  END IF;
  _taken := ARRAY(SELECT t.n FROM chukan.to_sequence t ORDER BY t.n LIMIT _limit);
  IF cardinality(_taken) = 0 THEN
    RETURN 0;
  END IF;
  WITH waiting AS (
    DELETE FROM chukan.to_sequence t WHERE t.n = ANY (_taken) RETURNING t.agency, t.n, t.record
  ), grouped AS (
    SELECT w.agency, array_agg(w.record ORDER BY w.n) AS records, count(*) AS count FROM waiting w GROUP BY w.agency
  ), moved AS (
    UPDATE chukan.log_heads h SET seq = h.seq + g.count FROM grouped g WHERE h.agency = g.agency
    RETURNING h.agency, h.seq - g.count AS before, g.records
  )
  INSERT INTO chukan.log (agency, seq, record, label, leaf_data, leaf_hash)
  SELECT m.agency, m.before + l.place, l.record, l.label, l.leaf, sha256('\x00'::bytea || l.leaf)
  FROM moved m CROSS JOIN LATERAL chukan.make_leaves(m.agency, m.records) l ORDER BY m.agency, l.place;
  GET DIAGNOSTICS _done = ROW_COUNT;
  IF _done <> cardinality(_taken) THEN
    PERFORM chukan.defect('a record to sequence is missing');
  END IF;
  RETURN _done;
END $$;

CREATE FUNCTION chukan.sequencer_age() RETURNS double precision
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN coalesce((SELECT greatest(0, extract(epoch FROM clock_timestamp() - t.at))
                   FROM chukan.to_sequence t ORDER BY t.n LIMIT 1), 0);
END $$;

CALL chukan.entrust('make_leaves', 'chukan_fn', '');
CALL chukan.entrust('sequence', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('sequencer_age', 'chukan_fn', 'chukan_broker');
