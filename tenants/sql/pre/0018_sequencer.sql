-- The sequencer: gives records their place in their agency's log. One at a time in a cell, held by an advisory lock that
-- ends with the commit; a second one finds the lock taken and goes away. The key of log is the last guard against forks.

-- Leaf data, 105 bytes: version 0x01 ‖ commitment (32) ‖ label (32) ‖ ordinal of this label (u64, from 0) ‖ previous leaf
-- hash of this label (32, zero where it is the first). Leaf hash: SHA-256(0x00 ‖ leaf data), RFC 9162.
CREATE FUNCTION chukan.leaf_data(_commitment bytea, _label bytea, _ordinal bigint, _previous bytea) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN '\x01'::bytea || _commitment || _label || int8send(_ordinal)
    || coalesce(_previous, decode(repeat('00', 32), 'hex'));
END $$;

-- Appends to one agency's log the records waiting under the numbers _n. Rows come label by label, each label's in order,
-- so the chain of a label is followed with two variables; positions are given by _n.
CREATE FUNCTION chukan.append_log(_agency integer, _n bigint[], _record uuid[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _head bigint;
  _row record;
  _label bytea;
  _ordinal bigint;
  _previous bytea;
  _data bytea;
  _places bigint[] := '{}';
  _records uuid[] := '{}';
  _labels bytea[] := '{}';
  _leaves bytea[] := '{}';
BEGIN
  SELECT h.seq INTO STRICT _head FROM chukan.log_heads h WHERE h.agency = _agency;
  FOR _row IN EXECUTE format(
    'SELECT t.record, t.place, r.commitment, r.label, p.leaf_data, p.leaf_hash
     FROM (SELECT u.record, row_number() OVER (ORDER BY u.n) AS place FROM unnest($1, $2) u(n, record)) t
     JOIN %1$I.records r ON r.agency = %2$s AND r.id = t.record
     LEFT JOIN LATERAL (SELECT l.leaf_data, l.leaf_hash FROM %1$I.log l WHERE l.agency = %2$s AND l.label = r.label
                        ORDER BY l.seq DESC LIMIT 1) p ON true
     ORDER BY r.label, t.place', chukan.schema_of(_agency), _agency) USING _n, _record
  LOOP
    IF _label IS DISTINCT FROM _row.label THEN
      _label := _row.label;
      _previous := _row.leaf_hash;
      -- The ordinal is the eight bytes after version, commitment and label.
      _ordinal := coalesce(('x' || encode(substr(_row.leaf_data, 66, 8), 'hex'))::bit(64)::bigint, -1);
    END IF;
    _ordinal := _ordinal + 1;
    _data := chukan.leaf_data(_row.commitment, _label, _ordinal, _previous);
    _previous := sha256('\x00'::bytea || _data);
    _places := array_append(_places, _head + _row.place);
    _records := array_append(_records, _row.record);
    _labels := array_append(_labels, _label);
    _leaves := array_append(_leaves, _data);
  END LOOP;
  IF cardinality(_records) <> cardinality(_record) THEN
    PERFORM chukan.defect('a record to sequence is missing');
  END IF;
  INSERT INTO chukan.log (agency, seq, record, label, leaf_data, leaf_hash)
  SELECT _agency, u.seq, u.record, u.label, u.leaf, sha256('\x00'::bytea || u.leaf)
  FROM unnest(_places, _records, _labels, _leaves) u(seq, record, label, leaf) ORDER BY u.seq;
  UPDATE chukan.log_heads SET seq = _head + cardinality(_record) WHERE agency = _agency;
END $$;

-- Takes up to _limit waiting records; returns how many, or -1 when another one holds the lock.
CREATE FUNCTION chukan.sequence(_owner text, _limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _taken bigint[];
  _rows record;
BEGIN
  IF NOT pg_try_advisory_xact_lock(4851205431602) THEN
    RETURN -1;
  END IF;
  _taken := ARRAY(SELECT t.n FROM chukan.to_sequence t ORDER BY t.n LIMIT _limit);
  IF cardinality(_taken) = 0 THEN
    RETURN 0;
  END IF;
  FOR _rows IN SELECT t.agency, array_agg(t.n ORDER BY t.n) AS n, array_agg(t.record ORDER BY t.n) AS record
               FROM chukan.to_sequence t WHERE t.n = ANY (_taken) GROUP BY t.agency ORDER BY t.agency LOOP
    PERFORM chukan.append_log(_rows.agency, _rows.n, _rows.record);
  END LOOP;
  DELETE FROM chukan.to_sequence t WHERE t.n = ANY (_taken);
  RETURN cardinality(_taken);
END $$;

CREATE FUNCTION chukan.sequencer_age() RETURNS double precision
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN coalesce((SELECT greatest(0, extract(epoch FROM clock_timestamp() - t.at))
                   FROM chukan.to_sequence t ORDER BY t.n LIMIT 1), 0);
END $$;

CALL chukan.entrust('leaf_data', 'chukan_fn', '');
CALL chukan.entrust('append_log', 'chukan_fn', '');
CALL chukan.entrust('sequence', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('sequencer_age', 'chukan_fn', 'chukan_broker');
