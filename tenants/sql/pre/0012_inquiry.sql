-- Inquirer: the steps of a line after its acceptance (照会).

-- Locks the work rows of the lines in order and returns their states, aligned with the input; NULL where there is none.
CREATE FUNCTION chukan.lock_inquiries(_agency integer[], _id uuid[]) RETURNS smallint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _was smallint[];
BEGIN
  WITH locked AS MATERIALIZED (
    SELECT w.agency, w.id, w.state
    FROM (SELECT DISTINCT u.agency, u.id FROM unnest(_agency, _id) u(agency, id)) u
    JOIN chukan.inquiry_work w ON w.agency = u.agency AND w.id = u.id
    ORDER BY w.agency, w.id FOR NO KEY UPDATE OF w
  )
  SELECT array_agg(l.state ORDER BY u.n) INTO _was
  FROM unnest(_agency, _id) WITH ORDINALITY u(agency, id, n)
  LEFT JOIN locked l ON l.agency = u.agency AND l.id = u.id;
  RETURN _was;
END $$;

-- Moves open lines only, and never back: what arrives later than the final outcome is 'late'. A permit is kept even
-- then, as evidence. Of two rows for one line in a call the second is 'late'.
CREATE FUNCTION chukan.step_inquiries(
  _agency integer[], _id uuid[], _state smallint[], _outcome smallint[], _reason text[], _due timestamptz[],
  _deadline timestamptz[], _permit bytea[], _drop boolean[],
  _r_id uuid[], _r_label bytea[], _r_month date[], _r_sealed bytea[], _r_commitment bytea[], _r_amends uuid[]
) RETURNS SETOF text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _was smallint[] := chukan.lock_inquiries(_agency, _id);
  _go boolean[];
BEGIN
  IF EXISTS (SELECT FROM unnest(_state, _r_id) u(state, record)
             WHERE u.state NOT BETWEEN 10 AND 69 OR (u.state >= 50) <> (u.record IS NOT NULL)) THEN
    PERFORM chukan.defect('a line has a record exactly when it is final');
  END IF;
  SELECT array_agg(coalesce(u.turn = 1 AND u.was < 50 AND (u.state >= 50 OR u.state >= u.was AND u.state < 40
                                                          OR u.state = 40 AND u.was = 40), false) ORDER BY u.n) INTO _go
  FROM (SELECT r.n, r.state, r.was, row_number() OVER (PARTITION BY r.agency, r.id ORDER BY r.n) AS turn
        FROM unnest(_agency, _id, _state, _was) WITH ORDINALITY r(agency, id, state, was, n)) u;

  UPDATE chukan.inquiry_work w SET
    state = u.state, outcome = u.outcome, reason = u.reason, due = u.due, deadline = u.deadline,
    outbox = w.outbox AND NOT u.dropped, tries = w.tries + 1, updated_at = now()
  FROM unnest(_go, _agency, _id, _state, _outcome, _reason, _due, _deadline, _drop)
       u(go, agency, id, state, outcome, reason, due, deadline, dropped)
  WHERE u.go AND w.agency = u.agency AND w.id = u.id;
  IF false = ANY (_go) THEN
    UPDATE chukan.inquiry_work w SET outbox = false
    FROM unnest(_go, _agency, _id, _drop) u(go, agency, id, dropped)
    WHERE NOT u.go AND u.dropped AND w.outbox AND w.agency = u.agency AND w.id = u.id;
  END IF;
  INSERT INTO chukan.permits (agency, id, sealed)
  SELECT u.agency, u.id, u.sealed FROM unnest(_agency, _id, _permit, _was) u(agency, id, sealed, was)
  WHERE u.sealed IS NOT NULL AND u.was IS NOT NULL ORDER BY u.agency
  ON CONFLICT DO NOTHING;  -- its repeat has the same bytes, and is answered to nobody
  PERFORM chukan.put_records(_agency, _id, _go, _r_id, _r_label, _r_month, _r_sealed, _r_commitment, _r_amends);
  PERFORM chukan.put_events(1::smallint, _agency, _id, _go, _was, _state);
  PERFORM chukan.fence(false = ANY (_go));
  RETURN QUERY SELECT CASE WHEN u.go THEN 'applied' ELSE 'late' END
    FROM unnest(_go) WITH ORDINALITY u(go, n) ORDER BY u.n;
END $$;

-- Steps by the worker that holds the leases.
CREATE FUNCTION chukan.settle_inquiries(
  _shards smallint[], _epochs bigint[],
  _agency integer[], _id uuid[], _state smallint[], _outcome smallint[], _reason text[], _due timestamptz[],
  _deadline timestamptz[], _permit bytea[], _drop boolean[],
  _r_id uuid[], _r_label bytea[], _r_month date[], _r_sealed bytea[], _r_commitment bytea[], _r_amends uuid[]
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM chukan.check_leases(1::smallint, _shards, _epochs, _agency);
  RETURN QUERY SELECT chukan.step_inquiries(_agency, _id, _state, _outcome, _reason, _due, _deadline, _permit, _drop,
    _r_id, _r_label, _r_month, _r_sealed, _r_commitment, _r_amends);
END $$;

-- The same for whoever may close a line without a lease: an officer's or a system's cancel (中断).
CREATE FUNCTION chukan.close_inquiries(
  _agency integer[], _id uuid[], _state smallint[], _outcome smallint[], _reason text[], _due timestamptz[],
  _deadline timestamptz[], _permit bytea[], _drop boolean[],
  _r_id uuid[], _r_label bytea[], _r_month date[], _r_sealed bytea[], _r_commitment bytea[], _r_amends uuid[]
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM chukan.check_generation(_agency, NULL);
  RETURN QUERY SELECT chukan.step_inquiries(_agency, _id, _state, _outcome, _reason, _due, _deadline, _permit, _drop,
    _r_id, _r_label, _r_month, _r_sealed, _r_commitment, _r_amends);
END $$;

-- Answers pushed by the network: effect, record and inbox key in one commit. 'unknown' leaves no inbox key, so that its
-- repeat is unknown again. Messages for the same line are taken in turn; nearly always there is one turn. A message
-- that comes twice in a call is taken once.
CREATE FUNCTION chukan.deliver_answers(
  _agency integer[], _generation integer[], _message uuid[], _id uuid[], _state smallint[], _outcome smallint[],
  _reason text[], _answer bytea[],
  _r_id uuid[], _r_label bytea[], _r_month date[], _r_sealed bytea[], _r_commitment bytea[], _r_amends uuid[],
  _a_id uuid[], _a_label bytea[], _a_month date[], _a_sealed bytea[], _a_commitment bytea[], _a_amends uuid[]
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _first bigint[];
  _turns integer[];
  _was smallint[];
  _fresh boolean[];
  _late boolean[];
  _go boolean[];
  _result text[] := array_fill(NULL::text, ARRAY[cardinality(_id)]);
BEGIN
  PERFORM chukan.check_generation(_agency, _generation);
  IF EXISTS (SELECT FROM unnest(_state, _r_id, _a_id, _a_amends) u(state, record, amendment, amends)
             WHERE u.state NOT BETWEEN 40 AND 69 OR (u.state >= 50) <> (u.record IS NOT NULL)
                OR (u.amendment IS NULL) <> (u.amends IS NULL)) THEN
    PERFORM chukan.defect('a line has a record exactly when it is final');
  END IF;
  SELECT array_agg(t.first ORDER BY t.n),
         array_agg(CASE WHEN t.n = t.first THEN t.turn ELSE 0 END ORDER BY t.n) INTO _first, _turns
  FROM (SELECT f.n, f.first, row_number() OVER (PARTITION BY f.agency, f.id, f.n = f.first ORDER BY f.n) AS turn
        FROM (SELECT u.agency, u.id, u.n, min(u.n) OVER (PARTITION BY u.agency, u.message) AS first
              FROM unnest(_agency, _id, _message) WITH ORDINALITY u(agency, id, message, n)) f) t;

  FOR _turn IN 1 .. (SELECT max(t) FROM unnest(_turns) t) LOOP
    _was := chukan.lock_inquiries(_agency, _id);
    _fresh := chukan.put_inbox(_agency, _message, ARRAY(
      SELECT u.turn = _turn AND u.was IS NOT NULL
      FROM unnest(_turns, _was) WITH ORDINALITY u(turn, was, n) ORDER BY u.n));
    -- Late is amended where it says something else than the line ended with: an old answer under a new id does not.
    SELECT array_agg(u.fresh AND u.was < 50 AND (u.state >= 50 OR u.was < 40) ORDER BY u.n),
           array_agg(u.fresh AND u.was >= 50 AND w.outcome <> u.outcome ORDER BY u.n),
           array_agg(CASE WHEN u.turn <> _turn THEN u.result
                          WHEN u.was IS NULL THEN 'unknown'
                          WHEN NOT u.fresh OR u.was = 40 AND u.state = 40 THEN 'repeat'
                          WHEN u.was >= 50 THEN 'late' ELSE 'applied' END ORDER BY u.n)
      INTO _go, _late, _result
    FROM unnest(_fresh, _was, _state, _turns, _result, _agency, _id, _outcome) WITH ORDINALITY
         u(fresh, was, state, turn, result, agency, id, outcome, n)
    LEFT JOIN chukan.inquiry_work w ON w.agency = u.agency AND w.id = u.id;

    UPDATE chukan.inquiry_work w SET
      state = u.state, outcome = u.outcome, reason = u.reason, due = w.deadline, outbox = false, updated_at = now()
    FROM unnest(_go, _agency, _id, _state, _outcome, _reason) u(go, agency, id, state, outcome, reason)
    WHERE u.go AND w.agency = u.agency AND w.id = u.id;
    INSERT INTO chukan.answers (agency, id, sealed)
    SELECT u.agency, u.id, u.sealed FROM unnest(_go, _agency, _id, _answer) u(go, agency, id, sealed)
    WHERE u.go AND u.sealed IS NOT NULL ORDER BY u.agency;
    PERFORM chukan.put_records(_agency, _id, _go, _r_id, _r_label, _r_month, _r_sealed, _r_commitment, _r_amends);
    IF true = ANY (_late) THEN
      PERFORM chukan.put_records(_agency, _id, _late, _a_id, _a_label, _a_month, _a_sealed, _a_commitment, _a_amends);
    END IF;
    PERFORM chukan.put_events(1::smallint, _agency, _id, _go, _was, _state);
  END LOOP;
  RETURN QUERY SELECT CASE WHEN u.first = u.n OR _result[u.first] = 'unknown' THEN _result[u.first] ELSE 'repeat' END
    FROM unnest(_first) WITH ORDINALITY u(first, n) ORDER BY u.n;
END $$;

CALL chukan.entrust('lock_inquiries', 'chukan_fn', '');
CALL chukan.entrust('step_inquiries', 'chukan_fn', '');
CALL chukan.entrust('settle_inquiries', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('close_inquiries', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('deliver_answers', 'chukan_fn', 'chukan_broker');
