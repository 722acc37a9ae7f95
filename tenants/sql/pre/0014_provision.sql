-- Provider: from a notice to a sealed answer in one commit (提供), and the steps after it.

-- What the provider's own data say about each line: the link behind the code, the holds, and the copies that the
-- condition selects. A first row for each line (n), and one more for each copy of a span. STABLE: all is read in one
-- snapshot, with the versions that provide() compares. A copy is in force from its date until the next date of the same
-- person and kind.
CREATE FUNCTION chukan.lookup(
  _agency integer[], _code bytea[], _kind text[], _period text[], _year text[], _on date[], _start date[], _end date[]
) RETURNS TABLE (n bigint, link smallint, person bytea, link_version bigint, held boolean, hold_version bigint,
                 snapshot bigint, copy uuid, layout integer, effective_from date, period text, body bytea,
                 review boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _rows record;
  _snapshot bigint := (SELECT c.snapshot FROM chukan.cell c);
BEGIN
  FOR _rows IN
    SELECT u.agency, a.hold_version, bool_or(u.period = '2') AS spans, array_agg(u.n) AS n, array_agg(u.code) AS code,
           array_agg(u.kind) AS kind, array_agg(CASE WHEN u.period = '1' THEN u.year END) AS year,
           array_agg(CASE WHEN u.period <> '2' THEN u.asof END) AS asof,
           array_agg(CASE WHEN u.period = '2' THEN u.first END) AS first,
           array_agg(CASE WHEN u.period = '2' THEN u.last END) AS last
    FROM unnest(_agency, _code, _kind, _period, _year, _on, _start, _end)
         WITH ORDINALITY u(agency, code, kind, period, year, asof, first, last, n)
    LEFT JOIN chukan.agencies a ON a.agency = u.agency AND a.state = 'open'
    GROUP BY u.agency, a.hold_version ORDER BY u.agency
  LOOP
    IF _rows.hold_version IS NULL THEN
      RAISE EXCEPTION USING ERRCODE = 'CK002', MESSAGE = 'stale_generation';
    END IF;
    -- Planning costs more than running here, and there is one plan an agency: so the common conditions have a query of
    -- their own, and spans, which are rare, a second one.
    RETURN QUERY EXECUTE format(
      'SELECT u.n, c.status, c.person, coalesce(c.version, 0),
              EXISTS (SELECT FROM %1$I.holds h WHERE (h.person = c.person OR h.person IS NULL)
                                                 AND (h.kind = u.kind OR h.kind IS NULL)),
              $6, $7, p.id, p.layout, p.effective_from, p.period, p.body, p.review
       FROM unnest($1, $2, $3, $4, $5) u(n, code, kind, year, asof)
       LEFT JOIN %1$I.codes c ON c.code_digest = u.code
       LEFT JOIN LATERAL (
         SELECT k.id, k.layout, k.effective_from, k.period, k.body, k.review FROM %1$I.copies k
         WHERE k.person = c.person AND k.kind = u.kind AND k.period = coalesce(u.year, k.period)
           AND k.effective_from <= u.asof
         ORDER BY k.effective_from DESC, k.layout DESC, k.period DESC LIMIT 1) p ON true',
      chukan.schema_of(_rows.agency))
      USING _rows.n, _rows.code, _rows.kind, _rows.year, _rows.asof, _rows.hold_version, _snapshot;
    IF _rows.spans THEN
      RETURN QUERY EXECUTE format(
        'SELECT u.n, c.status, c.person, c.version, false, $6, $7,
                p.id, p.layout, p.effective_from, p.period, p.body, p.review
         FROM unnest($1, $2, $3, $4, $5) u(n, code, kind, first, last)
         JOIN %1$I.codes c ON c.code_digest = u.code
         JOIN LATERAL (
           SELECT DISTINCT ON (k.effective_from, k.period) k.* FROM %1$I.copies k
           WHERE k.person = c.person AND k.kind = u.kind AND k.effective_from <= u.last
             AND NOT EXISTS (SELECT FROM %1$I.copies s WHERE s.person = k.person AND s.kind = k.kind
                             AND s.effective_from > k.effective_from AND s.effective_from <= u.first)
           ORDER BY k.effective_from DESC, k.period, k.layout DESC LIMIT 100) p ON true
         ORDER BY u.n, p.effective_from, p.period', chukan.schema_of(_rows.agency))
        USING _rows.n, _rows.code, _rows.kind, _rows.first, _rows.last, _rows.hold_version, _snapshot;
    END IF;
  END LOOP;
END $$;

-- Which rows (marked in _go, with a person) still have the link version that they were decided on; share-locked, so
-- that it stays so until this commit. A row that another transaction is changing counts as changed.
CREATE FUNCTION chukan.same_links(_agency integer[], _person bytea[], _version bigint[], _go boolean[])
RETURNS boolean[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _rows record;
  _part bigint[];
  _same bigint[] := '{}';
BEGIN
  FOR _rows IN SELECT u.agency, array_agg(u.n) AS n, array_agg(u.person) AS person, array_agg(u.version) AS version
               FROM unnest(_agency, _person, _version, _go) WITH ORDINALITY u(agency, person, version, go, n)
               WHERE u.go AND u.person IS NOT NULL GROUP BY u.agency ORDER BY u.agency LOOP
    EXECUTE format(
      'SELECT array_agg(f.n) FROM (
         SELECT u.n FROM unnest($1, $2, $3) u(n, person, version)
         JOIN %I.codes c ON c.person = u.person AND c.version = u.version FOR SHARE OF c SKIP LOCKED) f',
      chukan.schema_of(_rows.agency)) INTO _part USING _rows.n, _rows.person, _rows.version;
    _same := _same || coalesce(_part, '{}');
  END LOOP;
  RETURN ARRAY(SELECT u.go AND (u.person IS NULL OR s.n IS NOT NULL)
               FROM unnest(_go, _person) WITH ORDINALITY u(go, person, n)
               LEFT JOIN (SELECT DISTINCT unnest(_same)) s(n) ON s.n = u.n ORDER BY u.n);
END $$;

-- One commit from notice to sealed answer, or to a hold. A line whose hold version, link version or snapshot is not the
-- one that it was decided on comes back as 'again' and leaves nothing. The permit is for single use: the message that
-- used it is kept with it, so that its own repeat is a 'repeat' and any other message a replay.
CREATE FUNCTION chukan.provide(
  _agency integer[], _generation integer[], _message uuid[], _id uuid[], _permit bytea[], _permit_until timestamptz[],
  _notice bytea[], _state smallint[], _outcome smallint[], _reason text[], _person bytea[], _link_version bigint[],
  _hold_version bigint[], _snapshot bigint[], _deadline timestamptz[], _outbox bytea[],
  _r_id uuid[], _r_label bytea[], _r_month date[], _r_sealed bytea[], _r_commitment bytea[], _r_amends uuid[]
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _go boolean[];
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
    SELECT a.agency, a.hold_version FROM chukan.agencies a WHERE a.agency = ANY (_agency)
    ORDER BY a.agency FOR SHARE SKIP LOCKED
  )
  SELECT array_agg(coalesce(h.hold_version = u.version, false) ORDER BY u.n) INTO _go
  FROM unnest(_agency, _hold_version) WITH ORDINALITY u(agency, version, n) LEFT JOIN held h ON h.agency = u.agency;
  _go := chukan.same_links(_agency, _person, _link_version, _go);
  SELECT c.snapshot INTO _now FROM chukan.cell c FOR SHARE;
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
  PERFORM chukan.put_records(_agency, _id, _fresh, _r_id, _r_label, _r_month, _r_sealed, _r_commitment, _r_amends);
  PERFORM chukan.put_events(2::smallint, _agency, _id, _fresh,
                            array_fill(NULL::smallint, ARRAY[cardinality(_id)]), _state);
  RETURN QUERY SELECT
    CASE WHEN u.fresh THEN 'stored' WHEN u.own THEN 'repeat' WHEN u.go THEN 'replayed' ELSE 'again' END
    FROM unnest(_fresh, _own, _go) WITH ORDINALITY u(fresh, own, go, n) ORDER BY u.n;
END $$;

CALL chukan.entrust('lookup', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('same_links', 'chukan_fn', '');
CALL chukan.entrust('provide', 'chukan_fn', 'chukan_broker');
