-- Provider: finding work, receipts, officers' decisions and the review list.

CREATE FUNCTION chukan.lock_provisions(_agency integer[], _id uuid[]) RETURNS smallint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _was smallint[];
BEGIN
  WITH locked AS MATERIALIZED (
    SELECT w.agency, w.id, w.state
    FROM (SELECT DISTINCT u.agency, u.id FROM unnest(_agency, _id) u(agency, id)) u
    JOIN chukan.provision_work w ON w.agency = u.agency AND w.id = u.id
    ORDER BY w.agency, w.id FOR NO KEY UPDATE OF w
  )
  SELECT array_agg(l.state ORDER BY u.n) INTO _was
  FROM unnest(_agency, _id) WITH ORDINALITY u(agency, id, n)
  LEFT JOIN locked l ON l.agency = u.agency AND l.id = u.id;
  RETURN _was;
END $$;

-- The same order of fairness as due_inquiries().
CREATE FUNCTION chukan.due_provisions(_shards smallint[], _limit integer)
RETURNS TABLE (agency integer, id uuid, state smallint, outcome smallint, tries integer, deadline timestamptz,
               outbox boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _share integer := least(_limit, 1 + 2 * _limit / greatest(cardinality(_shards), 1));
  _found chukan.provision_work[];
BEGIN
  LOOP
    _found := ARRAY(
      SELECT w.line FROM unnest(_shards) s(shard) CROSS JOIN LATERAL (
        SELECT i.line, i.due, row_number() OVER (ORDER BY i.due) AS place
        FROM (SELECT d AS line, d.due FROM chukan.provision_work d
              WHERE d.shard = s.shard AND d.due <= now() AND d.state IN (40, 50)
              ORDER BY d.due LIMIT _share) i
      ) w ORDER BY w.place, w.due LIMIT _limit);
    EXIT WHEN _share >= _limit OR cardinality(_found) >= _limit;
    _share := _limit;
  END LOOP;
  RETURN QUERY SELECT f.agency, f.id, f.state, f.outcome, f.tries, f.deadline, f.outbox FROM unnest(_found) f;
END $$;

CREATE FUNCTION chukan.take_provisions(_shards smallint[], _epochs bigint[], _limit integer)
RETURNS TABLE (agency integer, id uuid, state smallint, outcome smallint, tries integer, deadline timestamptz,
               notice bytea, person bytea, outbox bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _found record;
BEGIN
  PERFORM chukan.check_grants(2::smallint, _shards, _epochs);
  FOR _found IN SELECT d.agency, array_agg(d.id) AS ids, array_agg(d.state) AS states, array_agg(d.outcome) AS outcomes,
                       array_agg(d.tries) AS tries, array_agg(d.deadline) AS deadlines, array_agg(d.outbox) AS sends
                FROM chukan.due_provisions(_shards, _limit) d GROUP BY d.agency ORDER BY d.agency LOOP
    RETURN QUERY EXECUTE format(
      'SELECT %2$s, u.id, u.state, u.outcome, u.tries, u.deadline, p.notice, p.person, o.sealed
       FROM unnest($1, $2, $3, $4, $5, $6) u(id, state, outcome, tries, deadline, sends)
       JOIN %1$I.provisions p ON p.agency = %2$s AND p.id = u.id
       LEFT JOIN %1$I.outbox o ON u.sends AND o.agency = %2$s AND o.id = u.id',
      chukan.schema_of(_found.agency), _found.agency)
      USING _found.ids, _found.states, _found.outcomes, _found.tries, _found.deadlines, _found.sends;
  END LOOP;
END $$;

-- Steps by the worker that holds the leases: receipt, lapse, expiry of a hold, or another try. Never back, and only
-- while open; a held line ends with its record, a line that was answered may get an amendment.
CREATE FUNCTION chukan.settle_provisions(
  _shards smallint[], _epochs bigint[],
  _agency integer[], _id uuid[], _state smallint[], _outcome smallint[], _due timestamptz[], _drop boolean[],
  _r_id uuid[], _r_label bytea[], _r_month date[], _r_sealed bytea[], _r_commitment bytea[], _r_amends uuid[]
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _was smallint[];
  _go boolean[];
BEGIN
  PERFORM chukan.check_leases(2::smallint, _shards, _epochs, _agency);
  _was := chukan.lock_provisions(_agency, _id);
  SELECT array_agg(coalesce(u.turn = 1 AND u.was IN (40, 50) AND u.state >= u.was, false) ORDER BY u.n) INTO _go
  FROM (SELECT r.n, r.state, r.was, row_number() OVER (PARTITION BY r.agency, r.id ORDER BY r.n) AS turn
        FROM unnest(_agency, _id, _state, _was) WITH ORDINALITY r(agency, id, state, was, n)) u;
  IF EXISTS (SELECT FROM unnest(_go, _was, _state, _r_id, _r_amends) u(go, was, state, record, amends)
             WHERE u.go AND (u.was = 40 AND u.state >= 50) <> (u.record IS NOT NULL AND u.amends IS NULL)) THEN
    PERFORM chukan.defect('a line has a record exactly when it is final');
  END IF;
  UPDATE chukan.provision_work w SET
    state = u.state, outcome = u.outcome, due = u.due, outbox = w.outbox AND NOT u.dropped, tries = w.tries + 1,
    updated_at = now()
  FROM unnest(_go, _agency, _id, _state, _outcome, _due, _drop) u(go, agency, id, state, outcome, due, dropped)
  WHERE u.go AND w.agency = u.agency AND w.id = u.id;
  PERFORM chukan.put_records(_agency, _id, _go, _r_id, _r_label, _r_month, _r_sealed, _r_commitment, _r_amends);
  PERFORM chukan.put_events(2::smallint, _agency, _id, _go, _was, _state);
  PERFORM chukan.fence(false = ANY (_go));
  RETURN QUERY SELECT CASE WHEN u.go THEN 'applied' ELSE 'late' END
    FROM unnest(_go) WITH ORDINALITY u(go, n) ORDER BY u.n;
END $$;

-- An officer's final decision on a held line: the final answer's bytes replace the interim ones, and are due at once.
CREATE FUNCTION chukan.decide_provisions(
  _agency integer[], _generation integer[], _id uuid[], _outcome smallint[], _reason text[], _person bytea[],
  _link_version bigint[], _snapshot bigint[], _outbox bytea[],
  _r_id uuid[], _r_label bytea[], _r_month date[], _r_sealed bytea[], _r_commitment bytea[], _r_amends uuid[]
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _was smallint[];
  _open boolean[];
  _go boolean[];
  _now bigint;
BEGIN
  PERFORM chukan.check_generation(_agency, _generation);
  IF EXISTS (SELECT FROM unnest(_r_id, _r_amends) u(record, amends) WHERE u.record IS NULL OR u.amends IS NOT NULL) THEN
    PERFORM chukan.defect('a line has a record exactly when it is final');
  END IF;
  _was := chukan.lock_provisions(_agency, _id);
  _open := ARRAY(SELECT coalesce(u.was = 40, false) AND row_number() OVER (PARTITION BY u.agency, u.id ORDER BY u.n) = 1
                 FROM unnest(_agency, _id, _was) WITH ORDINALITY u(agency, id, was, n) ORDER BY u.n);
  _go := chukan.same_links(_agency, _person, _link_version, _open);
  SELECT c.snapshot INTO _now FROM chukan.cell c FOR SHARE;
  _go := ARRAY(SELECT u.go AND u.snapshot = _now
               FROM unnest(_go, _snapshot) WITH ORDINALITY u(go, snapshot, n) ORDER BY u.n);
  UPDATE chukan.provision_work w SET
    state = 50, outcome = u.outcome, reason = u.reason, outbox = true, due = now(), tries = 0, updated_at = now()
  FROM unnest(_go, _agency, _id, _outcome, _reason) u(go, agency, id, outcome, reason)
  WHERE u.go AND w.agency = u.agency AND w.id = u.id;
  INSERT INTO chukan.outbox (agency, id, sealed)
  SELECT u.agency, u.id, u.sealed FROM unnest(_go, _agency, _id, _outbox) u(go, agency, id, sealed)
  WHERE u.go ORDER BY u.agency, u.id
  ON CONFLICT (agency, id) DO UPDATE SET sealed = excluded.sealed, at = now();
  PERFORM chukan.put_records(_agency, _id, _go, _r_id, _r_label, _r_month, _r_sealed, _r_commitment, _r_amends);
  PERFORM chukan.put_events(2::smallint, _agency, _id, _go, _was, array_fill(50::smallint, ARRAY[cardinality(_id)]));
  PERFORM chukan.fence(false = ANY (_go));
  RETURN QUERY SELECT CASE WHEN u.go THEN 'applied' WHEN u.open THEN 'again' ELSE 'late' END
    FROM unnest(_go, _open) WITH ORDINALITY u(go, open, n) ORDER BY u.n;
END $$;

-- One agency's provisions as its review list needs them.
CREATE FUNCTION chukan.provision_views(_agency integer, _state smallint, _ids uuid[], _limit integer)
RETURNS TABLE (id uuid, state smallint, outcome smallint, deadline timestamptz, notice bytea, person bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _found uuid[];
BEGIN
  IF _ids IS NOT NULL THEN
    _found := ARRAY(SELECT w.id FROM chukan.provision_work w WHERE w.agency = _agency AND w.id = ANY (_ids)
                    AND w.state = coalesce(_state, w.state) ORDER BY w.id LIMIT _limit);
  ELSIF _state = 40 THEN
    _found := ARRAY(SELECT w.id FROM chukan.provision_work w WHERE w.agency = _agency AND w.state = 40
                    ORDER BY w.id LIMIT _limit);
  ELSE
    _found := ARRAY(SELECT w.id FROM chukan.provision_work w WHERE w.agency = _agency
                    AND w.state = coalesce(_state, w.state) ORDER BY w.id LIMIT _limit);
  END IF;
  IF cardinality(_found) = 0 THEN
    RETURN;
  END IF;
  RETURN QUERY EXECUTE format(
    'SELECT w.id, w.state, w.outcome, w.deadline, p.notice, p.person FROM unnest($1) u(id)
     JOIN chukan.provision_work w ON w.agency = %2$s AND w.id = u.id
     JOIN %1$I.provisions p ON p.agency = %2$s AND p.id = u.id ORDER BY w.id', chukan.schema_of(_agency), _agency)
    USING _found;
END $$;

CALL chukan.entrust('lock_provisions', 'chukan_fn', '');
CALL chukan.entrust('due_provisions', 'chukan_fn', '');
CALL chukan.entrust('take_provisions', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('settle_provisions', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('decide_provisions', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('provision_views', 'chukan_fn', 'chukan_broker');
