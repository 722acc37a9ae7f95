-- What all set functions share. All take arrays of equal length, one element a row of the set; n is a row's position.
--
-- Order of locks, the same in all of them, so that no two sets wait for each other in a circle:
--   leases (shard) < agencies (agency) < idempotency keys < work rows (agency, id) < codes (agency, person)
--   < cell < permits_used (agency, permit) < inbox (agency, id)
-- Where another kind of transaction may hold a row for long, it is skipped and the line comes back as 'again'.
--
-- Errors: CK001 stale lease, CK002 stale generation or closed agency, CK003 a caller's mistake (a defect of ours).

CREATE FUNCTION chukan.defect(_what text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'CK003', MESSAGE = _what;
END $$;

-- Confirms that "nothing was left to do" rests on something durable: a commit that writes waits for the other centre.
CREATE FUNCTION chukan.fence(_needed boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF _needed THEN
    PERFORM pg_logical_emit_message(true, 'fence', '');
  END IF;
END $$;

-- Every agency named must be open here, in the generation given (NULL array: in whatever generation).
-- KEY SHARE: a move or closing waits for this set; a change of holds does not.
CREATE FUNCTION chukan.check_generation(_agency integer[], _generation integer[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  PERFORM 1 FROM chukan.agencies a WHERE a.agency = ANY (_agency) ORDER BY a.agency FOR KEY SHARE;
  IF EXISTS (SELECT FROM unnest(_agency, coalesce(_generation, array_fill(NULL::integer, ARRAY[cardinality(_agency)])))
                           u(agency, generation)
             LEFT JOIN chukan.agencies a ON a.agency = u.agency AND a.state = 'open'
                                        AND a.generation = coalesce(u.generation, a.generation)
             WHERE a.agency IS NULL) THEN
    RAISE EXCEPTION USING ERRCODE = 'CK002', MESSAGE = 'stale_generation';
  END IF;
END $$;

-- Every agency named must lie in a granted shard whose epoch still stands; a takeover waits until this set has ended.
CREATE FUNCTION chukan.check_leases(_side smallint, _shards smallint[], _epochs bigint[], _agency integer[])
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _needed smallint[] := ARRAY(SELECT DISTINCT (((u.agency::bigint * 2654435761) >> 16) % 64)::smallint
                              FROM unnest(_agency) u(agency));
  _found bigint;
BEGIN
  PERFORM 1 FROM chukan.leases l JOIN unnest(_shards, _epochs) g(shard, epoch)
    ON l.shard = g.shard AND l.epoch = g.epoch
    WHERE l.side = _side AND l.shard = ANY (_needed) ORDER BY l.shard FOR KEY SHARE OF l;
  GET DIAGNOSTICS _found = ROW_COUNT;
  IF _found <> cardinality(_needed) THEN
    RAISE EXCEPTION USING ERRCODE = 'CK001', MESSAGE = 'stale_lease';
  END IF;
END $$;

-- The same for a function that only reads: it says which shards are still the worker's, and locks nothing.
CREATE FUNCTION chukan.check_grants(_side smallint, _shards smallint[], _epochs bigint[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  IF (SELECT count(*) FROM chukan.leases l JOIN unnest(_shards, _epochs) g(shard, epoch)
        ON l.shard = g.shard AND l.epoch = g.epoch WHERE l.side = _side) <> cardinality(_shards) THEN
    RAISE EXCEPTION USING ERRCODE = 'CK001', MESSAGE = 'stale_lease';
  END IF;
END $$;

-- Writes the inbox keys of the rows marked in _go and tells which of them are new. A key that comes twice in one call
-- is split here: the second one is no news.
CREATE FUNCTION chukan.put_inbox(_agency integer[], _message uuid[], _go boolean[]) RETURNS boolean[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _fresh boolean[];
BEGIN
  WITH given AS (
    SELECT u.agency, u.message, u.n, row_number() OVER (PARTITION BY u.agency, u.message ORDER BY u.n) AS turn
    FROM unnest(_agency, _message, _go) WITH ORDINALITY u(agency, message, go, n) WHERE u.go
  ), kept AS (
    INSERT INTO chukan.inbox AS i (agency, sender, id)
    SELECT g.agency, 'network', g.message FROM given g WHERE g.turn = 1 ORDER BY g.agency, g.message
    ON CONFLICT (agency, sender, id) DO UPDATE SET tries = i.tries + 1
    RETURNING i.agency, i.id, i.tries
  )
  SELECT array_agg(coalesce(g.turn = 1 AND k.tries = 1, false) ORDER BY u.n) INTO _fresh
  FROM unnest(_agency) WITH ORDINALITY u(agency, n)
  LEFT JOIN given g ON g.n = u.n
  LEFT JOIN kept k ON k.agency = g.agency AND k.id = g.message;
  RETURN _fresh;
END $$;

-- Inserts the records of the rows marked in _go (rows without one are passed over) and queues them for the sequencer.
-- A final record bears its line's id, an amendment names the record that it amends.
CREATE FUNCTION chukan.put_records(
  _agency integer[], _line uuid[], _go boolean[],
  _id uuid[], _label bytea[], _month date[], _sealed bytea[], _commitment bytea[], _amends uuid[]
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  IF NOT true = ANY (_go) OR coalesce(array_position(_id, NULL), 0) = 1 AND array_remove(_id, NULL) = '{}' THEN
    RETURN;  -- no row brings a record: two statements less to plan
  END IF;
  IF EXISTS (SELECT FROM unnest(_line, _go, _id, _amends) u(line, go, id, amends)
             WHERE u.go AND u.id IS NOT NULL AND u.line IS DISTINCT FROM coalesce(u.amends, u.id)) THEN
    PERFORM chukan.defect('a record of another line');
  END IF;
  INSERT INTO chukan.records (agency, id, label, month, sealed, commitment, amends)
  SELECT u.agency, u.id, u.label, u.month, u.sealed, u.commitment, u.amends
  FROM unnest(_agency, _go, _id, _label, _month, _sealed, _commitment, _amends)
       u(agency, go, id, label, month, sealed, commitment, amends)
  WHERE u.go AND u.id IS NOT NULL ORDER BY u.agency;
  INSERT INTO chukan.to_sequence (agency, record)
  SELECT u.agency, u.id FROM unnest(_agency, _go, _id) WITH ORDINALITY u(agency, go, id, n)
  WHERE u.go AND u.id IS NOT NULL ORDER BY u.n;
END $$;

-- One event for each row marked in _go whose state changed.
CREATE FUNCTION chukan.put_events(
  _side smallint, _agency integer[], _line uuid[], _go boolean[], _from smallint[], _to smallint[]
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  INSERT INTO chukan.events (agency, id, side, from_state, to_state)
  SELECT u.agency, u.line, _side, u.from_state, u.to_state
  FROM unnest(_agency, _line, _go, _from, _to) WITH ORDINALITY u(agency, line, go, from_state, to_state, n)
  WHERE u.go AND u.from_state IS DISTINCT FROM u.to_state ORDER BY u.agency, u.n;
END $$;

CALL chukan.entrust('defect', 'chukan_fn', '');
CALL chukan.entrust('fence', 'chukan_fn', '');
CALL chukan.entrust('check_generation', 'chukan_fn', '');
CALL chukan.entrust('check_leases', 'chukan_fn', '');
CALL chukan.entrust('check_grants', 'chukan_fn', '');
CALL chukan.entrust('put_inbox', 'chukan_fn', '');
CALL chukan.entrust('put_records', 'chukan_fn', '');
CALL chukan.entrust('put_events', 'chukan_fn', '');
