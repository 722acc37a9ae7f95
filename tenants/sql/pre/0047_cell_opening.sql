-- A restore opens a new epoch (DESIGN §7): what a restored cell has forgotten must not be done a second time.
--
-- A cell is in epoch 1 until it is restored. A process whose settings name a higher one knows the cell as restored and not
-- yet opened; an administrator opens it. From that instant on no permit is served that was issued before: the state of the
-- moment restored to does not know which of them were used since.

CREATE TABLE chukan.cell_opening (
  epoch     integer PRIMARY KEY CHECK (epoch > 0),
  opened_at timestamptz NOT NULL,
  note      text NOT NULL DEFAULT ''
);
ALTER TABLE chukan.cell_opening OWNER TO chukan_fn;
INSERT INTO chukan.cell_opening (epoch, opened_at) VALUES (1, '-infinity');
ALTER TABLE chukan.cell ADD COLUMN epoch integer NOT NULL DEFAULT 1 REFERENCES chukan.cell_opening (epoch);

-- Since when each agency's present state is all that there was: no older permit of it is served. It stands beside
-- hold_version, in the row that every provision holds anyway, so that asking for it costs nothing.
ALTER TABLE chukan.agencies ADD COLUMN opened_at timestamptz NOT NULL DEFAULT '-infinity';

CREATE FUNCTION chukan.opening() RETURNS TABLE (epoch integer, opened_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT o.epoch, o.opened_at FROM chukan.cell c JOIN chukan.cell_opening o ON o.epoch = c.epoch;
END $$;

-- Opens a restored cell in an epoch that it was never open in; waits for the sets in flight. By an administrator only.
CREATE FUNCTION chukan.open_cell(_epoch integer, _note text) RETURNS timestamptz
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '15s' AS $$
#variable_conflict use_column
DECLARE
  _now integer;
  _at timestamptz;
BEGIN
  PERFORM 1 FROM chukan.agencies a ORDER BY a.agency FOR UPDATE;
  SELECT c.epoch INTO _now FROM chukan.cell c FOR UPDATE;
  IF _epoch <= _now THEN
    PERFORM chukan.defect('a cell is opened in a later epoch only');
  END IF;
  _at := clock_timestamp();
  INSERT INTO chukan.cell_opening (epoch, opened_at, note) VALUES (_epoch, _at, _note);
  UPDATE chukan.cell SET epoch = _epoch;
  UPDATE chukan.agencies SET opened_at = _at;
  RETURN _at;
END $$;

-- Which permits (by their digests) an agency has used, for whoever reconciles a restored cell with the network.
CREATE FUNCTION chukan.known_permits(_agency integer, _permit bytea[]) RETURNS boolean[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _known boolean[];
BEGIN
  EXECUTE format('SELECT array_agg(p.permit IS NOT NULL ORDER BY u.n) FROM unnest($1) WITH ORDINALITY u(permit, n)
                  LEFT JOIN %I.permits_used p ON p.agency = %s AND p.permit = u.permit',
                 chukan.schema_of(_agency), _agency) INTO _known USING _permit;
  RETURN coalesce(_known, '{}');
END $$;

-- provide() as before (0014, 0041, 0045), told besides when each permit was issued. A line whose permit is from before the
-- opening leaves nothing: 'repeat' where its own message was taken before, 'before_restore' otherwise.
CREATE FUNCTION chukan.provide_notices(
  _agency integer[], _generation integer[], _message uuid[], _id uuid[], _permit bytea[], _permit_until timestamptz[],
  _notice bytea[], _state smallint[], _outcome smallint[], _reason text[], _person bytea[], _link_version bigint[],
  _hold_version bigint[], _snapshot bigint[], _deadline timestamptz[], _outbox bytea[], _issued timestamptz[],
  _r_id uuid[], _r_label bytea[], _r_month date[], _r_sealed bytea[], _r_commitment bytea[], _r_amends uuid[]
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _go boolean[];
  _past boolean[];
  _known bigint[] := '{}';
  _own boolean[];
  _fresh boolean[];
  _now bigint;
BEGIN
  PERFORM chukan.check_generation(_agency, _generation);
  -- 71: the permit had lapsed on arrival; recorded, and nothing is sent.
  IF EXISTS (SELECT FROM unnest(_state, _r_id, _outbox) u(state, record, outbox)
             WHERE u.state NOT IN (40, 50, 71) OR (u.state >= 50) <> (u.record IS NOT NULL)
                OR (u.state = 71) <> (u.outbox IS NULL)) THEN
    PERFORM chukan.defect('a line has a record exactly when it is final');
  END IF;
  -- An agency that is changing its holds at this moment holds its row; its lines are decided again, nobody waits.
  WITH held AS MATERIALIZED (
    SELECT a.agency, a.hold_version, a.opened_at FROM chukan.agencies a WHERE a.agency = ANY (_agency)
    ORDER BY a.agency FOR SHARE SKIP LOCKED
  )
  SELECT array_agg(coalesce(h.hold_version = u.version AND u.issued >= h.opened_at, false) ORDER BY u.n),
         array_agg(coalesce(u.issued < h.opened_at, false) ORDER BY u.n) INTO _go, _past
  FROM unnest(_agency, _hold_version, _issued) WITH ORDINALITY u(agency, version, issued, n)
  LEFT JOIN held h ON h.agency = u.agency;
  IF true = ANY (_past) THEN
    _known := chukan.known_messages(_agency, _message, _past);
    PERFORM chukan.fence(true);
  END IF;
  _go := chukan.same_links(_agency, _person, _link_version, _go);
  _now := chukan.held_snapshot();
  _go := ARRAY(SELECT u.go AND u.snapshot = _now
               FROM unnest(_go, _snapshot) WITH ORDINALITY u(go, snapshot, n) ORDER BY u.n);

  WITH given AS (
    SELECT u.*, row_number() OVER (PARTITION BY u.agency, u.permit ORDER BY u.n) AS turn
    FROM unnest(_agency, _permit, _message, _permit_until, _go) WITH ORDINALITY u(agency, permit, message, until, go, n)
    WHERE u.go
  ), kept AS (
    INSERT INTO chukan.permits_used AS p (agency, permit, message, until)
    SELECT g.agency, g.permit, g.message, g.until FROM given g WHERE g.turn = 1 ORDER BY g.agency, g.permit
    ON CONFLICT (agency, permit) DO UPDATE SET until = greatest(p.until, excluded.until)
    RETURNING p.agency, p.permit, p.message
  )
  SELECT array_agg(coalesce(k.message = g.message, false) ORDER BY u.n) INTO _own
  FROM unnest(_go) WITH ORDINALITY u(go, n) LEFT JOIN given g ON g.n = u.n
  LEFT JOIN kept k ON k.agency = g.agency AND k.permit = g.permit;
  _fresh := chukan.put_inbox(_agency, _message, _own);

  INSERT INTO chukan.provisions (agency, id, person, notice)
  SELECT u.agency, u.id, u.person, u.notice
  FROM unnest(_fresh, _agency, _id, _person, _notice) u(go, agency, id, person, notice)
  WHERE u.go ORDER BY u.agency;
  INSERT INTO chukan.outbox (agency, id, sealed)
  SELECT u.agency, u.id, u.sealed FROM unnest(_fresh, _agency, _id, _outbox) u(go, agency, id, sealed)
  WHERE u.go AND u.sealed IS NOT NULL ORDER BY u.agency;
  INSERT INTO chukan.provision_work (agency, id, state, outcome, reason, outbox, due, deadline)
  SELECT u.agency, u.id, u.state, u.outcome, u.reason, u.state <> 71, now(), u.deadline
  FROM unnest(_fresh, _agency, _id, _state, _outcome, _reason, _deadline)
       u(go, agency, id, state, outcome, reason, deadline)
  WHERE u.go ORDER BY u.agency, u.id;
  PERFORM chukan.put_counted_records(2::smallint, _outcome, _agency, _id, _fresh,
                                     _r_id, _r_label, _r_month, _r_sealed, _r_commitment, _r_amends);
  PERFORM chukan.put_events(2::smallint, _agency, _id, _fresh,
                            array_fill(NULL::smallint, ARRAY[cardinality(_id)]), _state);
  RETURN QUERY SELECT
    CASE WHEN u.fresh THEN 'stored' WHEN u.own OR u.n = ANY (_known) THEN 'repeat' WHEN u.past THEN 'before_restore'
         WHEN u.go THEN 'replayed' ELSE 'again' END
    FROM unnest(_fresh, _own, _go, _past) WITH ORDINALITY u(fresh, own, go, past, n) ORDER BY u.n;
END $$;

-- For exchanges of the release before, which do not tell when a permit was issued: after a restore they provide nothing.
CREATE OR REPLACE FUNCTION chukan.provide(
  _agency integer[], _generation integer[], _message uuid[], _id uuid[], _permit bytea[], _permit_until timestamptz[],
  _notice bytea[], _state smallint[], _outcome smallint[], _reason text[], _person bytea[], _link_version bigint[],
  _hold_version bigint[], _snapshot bigint[], _deadline timestamptz[], _outbox bytea[],
  _r_id uuid[], _r_label bytea[], _r_month date[], _r_sealed bytea[], _r_commitment bytea[], _r_amends uuid[]
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY SELECT CASE WHEN p.word = 'before_restore' THEN 'again' ELSE p.word END
    FROM chukan.provide_notices(
      _agency, _generation, _message, _id, _permit, _permit_until, _notice, _state, _outcome, _reason, _person,
      _link_version, _hold_version, _snapshot, _deadline, _outbox,
      array_fill('-infinity'::timestamptz, ARRAY[cardinality(_id)]),
      _r_id, _r_label, _r_month, _r_sealed, _r_commitment, _r_amends) WITH ORDINALITY p(word, n) ORDER BY p.n;
END $$;

CALL chukan.entrust('opening', 'chukan_fn', 'chukan_broker', 'chukan_app', 'chukan_steward');
CALL chukan.entrust('open_cell', 'chukan_fn', '');
CALL chukan.entrust('known_permits', 'chukan_fn', '');
CALL chukan.entrust('provide_notices', 'chukan_fn', 'chukan_broker');
