-- Evidence in operation (証跡の運用): a record that is gone sets its own agency aside and nobody else; the log of a restored
-- cell says that it was restored, and a cosigner believes it once for each epoch.

-- Agencies whose log is not gone on with, because what waits for a place is not there: until a person has looked.
CREATE TABLE chukan.log_aside (
  agency integer PRIMARY KEY,
  record uuid NOT NULL,
  at     timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE chukan.log_aside OWNER TO chukan_fn;
COMMENT ON TABLE chukan.log_aside IS 'record: the first that is missing; the rows of to_sequence stay as they are';

-- The first of an agency's waiting records that is not there, in the order of arrival; NULL where all are. Without its
-- table or its head, none can have a place.
CREATE FUNCTION chukan.missing_record(_agency integer, _record uuid[]) RETURNS uuid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _found uuid;
BEGIN
  IF to_regclass(format('%I.records', chukan.schema_of(_agency))) IS NULL
     OR NOT EXISTS (SELECT FROM chukan.log_heads h WHERE h.agency = _agency) THEN
    RETURN _record[1];
  END IF;
  EXECUTE format('SELECT t.record FROM unnest($1) WITH ORDINALITY t(record, place)
                  WHERE NOT EXISTS (SELECT FROM %I.records r WHERE r.agency = %s AND r.id = t.record)
                  ORDER BY t.place LIMIT 1', chukan.schema_of(_agency), _agency) INTO _found USING _record;
  RETURN _found;
END $$;

-- Sets aside the agencies of these rows of which a record is missing; returns how many.
CREATE FUNCTION chukan.set_aside(_taken bigint[]) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _count integer;
BEGIN
  INSERT INTO chukan.log_aside (agency, record)
  SELECT g.agency, g.missing FROM (
    SELECT t.agency, chukan.missing_record(t.agency, array_agg(t.record ORDER BY t.n)) AS missing
    FROM chukan.to_sequence t WHERE t.n = ANY (_taken) GROUP BY t.agency
  ) g WHERE g.missing IS NOT NULL ORDER BY g.agency
  ON CONFLICT (agency) DO UPDATE SET record = excluded.record;
  GET DIAGNOSTICS _count = ROW_COUNT;
  RETURN _count;
END $$;

-- sequence() as before (0018), but for agencies that are set aside: theirs wait. Where a record is missing nothing of the
-- set is kept, its agency is set aside, and the others are taken again: each round has one agency less.
CREATE OR REPLACE FUNCTION chukan.sequence(_owner text, _limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _aside integer[];
  _taken bigint[];
  _done bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(4851205431602) THEN
    RETURN -1;
  END IF;
  LOOP
    _aside := ARRAY(SELECT a.agency FROM chukan.log_aside a);
    _taken := ARRAY(SELECT t.n FROM chukan.to_sequence t WHERE t.agency <> ALL (_aside) ORDER BY t.n LIMIT _limit);
    IF cardinality(_taken) = 0 THEN
      RETURN 0;
    END IF;
    BEGIN
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
    EXCEPTION WHEN SQLSTATE 'CK003' OR undefined_table OR invalid_schema_name THEN
      IF chukan.set_aside(_taken) = 0 THEN
        RAISE;
      END IF;
    END;
  END LOOP;
END $$;

-- How many agencies are set aside.
CREATE FUNCTION chukan.logs_aside() RETURNS integer
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT count(*) FROM chukan.log_aside);
END $$;

-- Goes on with the logs that were set aside and whose records are there again; returns the agencies that stay aside.
CREATE FUNCTION chukan.resume_logs() RETURNS TABLE (agency integer, record uuid, at timestamptz)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  DELETE FROM chukan.log_aside a WHERE chukan.missing_record(
    a.agency, ARRAY(SELECT t.record FROM chukan.to_sequence t WHERE t.agency = a.agency ORDER BY t.n)) IS NULL;
  RETURN QUERY SELECT a.agency, a.record, a.at FROM chukan.log_aside a ORDER BY a.agency;
END $$;

-- ------------------------------------------------------------ the leaf of a restore

-- In which epoch a cosigner last believed that a log was restored: never twice in the same one.
ALTER TABLE chukan.witnessed ADD COLUMN epoch integer NOT NULL DEFAULT 1;

-- What begins every such leaf's label; 20 bytes, then the epoch (u32) and the size that it names (u64).
CREATE FUNCTION chukan.restored_label(_epoch integer, _size bigint) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN convert_to('chukan restored leaf', 'UTF8') || int4send(_epoch) || int8send(_size);
END $$;

-- Ends an agency's log as it was restored, by a leaf that names a tree which was seen before: version 0x02 ‖ its root ‖ label
-- ‖ ordinal ‖ previous leaf of this label, 105 bytes like every leaf. By an administrator, before the cell is opened;
-- returns its position, that of the first time where it is there.
CREATE FUNCTION chukan.restored_leaf(_agency integer, _epoch integer, _size bigint, _root bytea) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '15s' AS $$
#variable_conflict use_column
DECLARE
  _label bytea := chukan.restored_label(_epoch, _size);
  -- The label names what this leaf is about, so that it is the only one of it.
  _leaf bytea := '\x02'::bytea || _root || _label || int8send(0) || decode(repeat('00', 32), 'hex');
  _seq bigint;
BEGIN
  IF octet_length(_root) <> 32 OR _epoch < 2 OR _size < 0 THEN
    PERFORM chukan.defect('a tree has a size and a root, and a restore an epoch');
  END IF;
  PERFORM pg_advisory_xact_lock(4851205431602);
  EXECUTE format('SELECT l.seq FROM %I.log l WHERE l.agency = %s AND l.label = $1', chukan.schema_of(_agency), _agency)
    INTO _seq USING _label;
  IF _seq IS NULL THEN
    UPDATE chukan.log_heads h SET seq = h.seq + 1 WHERE h.agency = _agency RETURNING h.seq INTO STRICT _seq;
    INSERT INTO chukan.log (agency, seq, record, label, leaf_data, leaf_hash)
    VALUES (_agency, _seq, gen_random_uuid(), _label, _leaf, sha256('\x00'::bytea || _leaf));
  END IF;
  RETURN _seq;
END $$;

-- Up to which position an agency's log is, and which trees of these logs any cosigner has seen that remembers in this cell.
CREATE FUNCTION chukan.witness_all(_origins text[]) RETURNS TABLE (origin text, size bigint, root bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT DISTINCT w.origin, w.size, w.root FROM chukan.witnessed w WHERE w.origin = ANY (_origins)
    ORDER BY w.origin, w.size;
END $$;

-- The leaves of restores of an agency's log, in their order.
CREATE FUNCTION chukan.evidence_restored(_agency integer) RETURNS TABLE (seq bigint, leaf_data bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM chukan.check_here(ARRAY[_agency]);
  RETURN QUERY EXECUTE format('SELECT l.seq, l.leaf_data FROM %I.log l WHERE l.agency = %s AND l.label >= $1 AND l.label <= $2
                               ORDER BY l.seq LIMIT 1000', chukan.schema_of(_agency), _agency)
    USING convert_to('chukan restored leaf', 'UTF8'), convert_to('chukan restored leaf', 'UTF8') || decode(repeat('ff', 12), 'hex');
END $$;

-- Takes a restored log's tree in place of the one that was lost, which its leaf names: once for each epoch and log. A repeat
-- finds what it kept, and writes.
CREATE FUNCTION chukan.witness_restore(
  _signer text, _origin text, _before bigint, _before_root bytea, _size bigint, _root bytea, _epoch integer
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _kept boolean;
BEGIN
  UPDATE chukan.witnessed w SET size = _size, root = _root, epoch = _epoch, at = now()
    WHERE w.signer = _signer AND w.origin = _origin
      AND ((w.size = _before AND w.root = _before_root AND w.epoch < _epoch)
           OR (w.size = _size AND w.root = _root AND w.epoch = _epoch))
    RETURNING true INTO _kept;
  RETURN coalesce(_kept, false);
END $$;

CALL chukan.entrust('missing_record', 'chukan_fn', '');
CALL chukan.entrust('set_aside', 'chukan_fn', '');
CALL chukan.entrust('logs_aside', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('resume_logs', 'chukan_fn', '');
CALL chukan.entrust('restored_label', 'chukan_fn', '');
CALL chukan.entrust('restored_leaf', 'chukan_fn', '');
CALL chukan.entrust('witness_all', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('evidence_restored', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('witness_restore', 'chukan_fn', 'chukan_broker');
