-- Inquirer: making POSTed lists durable. Needs no lease: whoever takes the request writes it.

-- One row in, one row out a batch: the first batch stored for the key, whether that is this one, whether its body was
-- the same. Only the lines of fresh batches are stored.
CREATE FUNCTION chukan.accept(
  _agency integer[], _generation integer[], _key bytea[], _body bytea[], _batch uuid[],
  _l_agency integer[], _l_batch uuid[], _l_id uuid[], _l_ordinal integer[], _l_state smallint[], _l_outcome smallint[],
  _l_reason text[], _l_due timestamptz[], _l_deadline timestamptz[], _l_person bytea[], _l_request bytea[],
  _l_outbox bytea[],
  _r_id uuid[], _r_label bytea[], _r_month date[], _r_sealed bytea[], _r_commitment bytea[], _r_amends uuid[]
) RETURNS TABLE (batch uuid, fresh boolean, same_body boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _kept uuid[];
  _fresh boolean[];
  _same boolean[];
  _go boolean[];
BEGIN
  PERFORM chukan.check_generation(_agency, _generation);
  WITH given AS (
    SELECT u.agency, u.key, u.body, u.batch, u.n, row_number() OVER (PARTITION BY u.agency, u.key ORDER BY u.n) AS turn
    FROM unnest(_agency, _key, _body, _batch) WITH ORDINALITY u(agency, key, body, batch, n)
  ), kept AS (
    INSERT INTO chukan.idempotency AS i (agency, key, body, outcome)
    SELECT g.agency, g.key, g.body, g.batch FROM given g WHERE g.turn = 1 ORDER BY g.agency, g.key
    ON CONFLICT (agency, key) DO UPDATE SET tries = i.tries + 1
    RETURNING i.agency, i.key, i.body, i.outcome, i.tries
  )
  SELECT array_agg(k.outcome ORDER BY g.n), array_agg(g.turn = 1 AND k.tries = 1 ORDER BY g.n),
         array_agg(g.body = k.body ORDER BY g.n)
    INTO _kept, _fresh, _same
  FROM given g JOIN kept k ON k.agency = g.agency AND k.key = g.key;

  SELECT array_agg(b.batch IS NOT NULL ORDER BY l.n) INTO _go
  FROM unnest(_l_agency, _l_batch) WITH ORDINALITY l(agency, batch, n)
  LEFT JOIN unnest(_agency, _batch, _fresh) b(agency, batch, fresh)
    ON b.fresh AND b.agency = l.agency AND b.batch = l.batch;
  IF EXISTS (SELECT FROM unnest(_go, _l_state, _r_id) u(go, state, record)
             WHERE u.go AND (u.state >= 50) <> (u.record IS NOT NULL)) THEN
    PERFORM chukan.defect('a line has a record exactly when it is final');
  END IF;

  INSERT INTO chukan.queries (agency, id, batch, person, request)
  SELECT u.agency, u.id, u.batch, u.person, u.request
  FROM unnest(_go, _l_agency, _l_id, _l_batch, _l_person, _l_request) u(go, agency, id, batch, person, request)
  WHERE u.go ORDER BY u.agency;
  INSERT INTO chukan.outbox (agency, id, sealed)
  SELECT u.agency, u.id, u.sealed FROM unnest(_go, _l_agency, _l_id, _l_outbox) u(go, agency, id, sealed)
  WHERE u.go AND u.sealed IS NOT NULL ORDER BY u.agency;
  INSERT INTO chukan.inquiry_work (agency, id, batch, ordinal, state, outcome, reason, outbox, due, deadline)
  SELECT u.agency, u.id, u.batch, u.ordinal, u.state, u.outcome, u.reason, u.sealed IS NOT NULL, u.due, u.deadline
  FROM unnest(_go, _l_agency, _l_id, _l_batch, _l_ordinal, _l_state, _l_outcome, _l_reason, _l_outbox, _l_due,
              _l_deadline)
       u(go, agency, id, batch, ordinal, state, outcome, reason, sealed, due, deadline)
  WHERE u.go ORDER BY u.agency, u.id;
  PERFORM chukan.put_records(_l_agency, _l_id, _go, _r_id, _r_label, _r_month, _r_sealed, _r_commitment, _r_amends);
  PERFORM chukan.put_events(1::smallint, _l_agency, _l_id, _go, array_fill(NULL::smallint, ARRAY[cardinality(_l_id)]),
                            _l_state);
  RETURN QUERY SELECT u.batch, u.fresh, u.same
    FROM unnest(_kept, _fresh, _same) WITH ORDINALITY u(batch, fresh, same, n)
    ORDER BY u.n;
END $$;

CALL chukan.entrust('accept', 'chukan_fn', 'chukan_broker');
