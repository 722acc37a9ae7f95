-- What a line was decided on is looked at once more in the commit that makes it durable, on the asking side too, for an
-- officer's decision and for a correction: nothing is asked by a link that was suspended, or under a delegation that was
-- ended, a moment before; nothing is corrected on top of what somebody else has corrected meanwhile.

-- accept() (0011), told besides by which version of the person's link each line is asked (NULL: by none), and under which
-- of the agency's delegations (NULL: under none). A batch with a line for which either is not so any more leaves
-- nothing and comes back as 'again'; the others are stored. A row that is being changed at this moment is not waited for.
CREATE FUNCTION chukan.accept_asked(
  _agency integer[], _generation integer[], _key bytea[], _body bytea[], _batch uuid[],
  _l_agency integer[], _l_batch uuid[], _l_id uuid[], _l_ordinal integer[], _l_state smallint[], _l_outcome smallint[],
  _l_reason text[], _l_due timestamptz[], _l_deadline timestamptz[], _l_person bytea[], _l_request bytea[],
  _l_outbox bytea[],
  _r_id uuid[], _r_label bytea[], _r_month date[], _r_sealed bytea[], _r_commitment bytea[], _r_amends uuid[],
  _l_link bigint[], _l_delegation uuid[]
) RETURNS TABLE (batch uuid, fresh boolean, same_body boolean, again boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _asks boolean[] := ARRAY(SELECT u.link IS NOT NULL FROM unnest(_l_link) WITH ORDINALITY u(link, n) ORDER BY u.n);
  _linked boolean[] := _asks;
  _held integer[];
  _rows record;
  _part bigint[];
  _stands bigint[] := '{}';
  _ok boolean[];
  _given uuid[] := _batch;
BEGIN
  PERFORM chukan.check_generation(_agency, _generation);
  IF true = ANY (_asks) THEN
    _linked := chukan.same_links(_l_agency, _l_person, _l_link, _asks);
  END IF;
  IF (SELECT count(d) > 0 FROM unnest(_l_delegation) d) THEN
    -- Whoever ends one changes the agency's row (bump_holds): of the two commits one comes first, and the other sees it.
    _held := ARRAY(SELECT a.agency FROM chukan.agencies a
                   WHERE a.agency IN (SELECT u.agency FROM unnest(_l_agency, _l_delegation) u(agency, delegation)
                                      WHERE u.delegation IS NOT NULL)
                   ORDER BY a.agency FOR SHARE SKIP LOCKED);
    FOR _rows IN SELECT u.agency, array_agg(u.n) AS n, array_agg(u.delegation) AS delegation
                 FROM unnest(_l_agency, _l_delegation) WITH ORDINALITY u(agency, delegation, n)
                 WHERE u.delegation IS NOT NULL AND u.agency = ANY (_held) GROUP BY u.agency ORDER BY u.agency LOOP
      EXECUTE format('SELECT array_agg(u.n) FROM unnest($1, $2) u(n, delegation)
                      JOIN %I.delegations d ON d.id = u.delegation AND d.state = ''in_force''',
                     chukan.schema_of(_rows.agency)) INTO _part USING _rows.n, _rows.delegation;
      _stands := _stands || coalesce(_part, '{}');
    END LOOP;
  END IF;
  SELECT array_agg(f.agency IS NULL ORDER BY b.n) INTO _ok
  FROM unnest(_agency, _batch) WITH ORDINALITY b(agency, batch, n)
  LEFT JOIN (SELECT DISTINCT l.agency, l.batch
             FROM unnest(_l_agency, _l_batch, _asks, _linked, _l_delegation)
                  WITH ORDINALITY l(agency, batch, asks, linked, delegation, n)
             WHERE (l.asks AND NOT l.linked) OR (l.delegation IS NOT NULL AND l.n <> ALL (_stands))) f
    ON f.agency = b.agency AND f.batch = b.batch;
  IF false = ANY (_ok) THEN
    SELECT array_agg(u.agency ORDER BY u.n), array_agg(u.generation ORDER BY u.n), array_agg(u.key ORDER BY u.n),
           array_agg(u.body ORDER BY u.n), array_agg(u.batch ORDER BY u.n)
      INTO _agency, _generation, _key, _body, _given
    FROM unnest(_agency, _generation, _key, _body, _batch, _ok)
         WITH ORDINALITY u(agency, generation, key, body, batch, ok, n) WHERE u.ok;
  END IF;
  IF _given IS NULL THEN
    RETURN QUERY SELECT u.batch, false, false, true FROM unnest(_batch) WITH ORDINALITY u(batch, n) ORDER BY u.n;
    RETURN;
  END IF;
  -- Lines of a batch that is not among those given are stored by nobody.
  RETURN QUERY SELECT coalesce(k.batch, u.batch), coalesce(k.fresh, false), coalesce(k.same_body, false), NOT u.ok
    FROM (SELECT g.batch, g.ok, g.n, sum(g.ok::integer) OVER (ORDER BY g.n) AS place
          FROM unnest(_batch, _ok) WITH ORDINALITY g(batch, ok, n)) u
    LEFT JOIN chukan.accept(_agency, _generation, _key, _body, _given, _l_agency, _l_batch, _l_id, _l_ordinal,
                _l_state, _l_outcome, _l_reason, _l_due, _l_deadline, _l_person, _l_request, _l_outbox,
                _r_id, _r_label, _r_month, _r_sealed, _r_commitment, _r_amends)
              WITH ORDINALITY k(batch, fresh, same_body, place) ON u.ok AND k.place = u.place
    ORDER BY u.n;
END $$;

-- decide_provisions() (0015), told besides on which state of the agency's holds and delegations each line was decided: a
-- line decided on another one comes back as 'again', like one whose link or common data changed.
CREATE FUNCTION chukan.decide_reviews(
  _agency integer[], _generation integer[], _id uuid[], _outcome smallint[], _reason text[], _person bytea[],
  _link_version bigint[], _snapshot bigint[], _outbox bytea[], _hold_version bigint[],
  _r_id uuid[], _r_label bytea[], _r_month date[], _r_sealed bytea[], _r_commitment bytea[], _r_amends uuid[]
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _of bigint[];
BEGIN
  PERFORM chukan.check_generation(_agency, _generation);
  WITH held AS MATERIALIZED (
    SELECT a.agency, a.hold_version FROM chukan.agencies a WHERE a.agency = ANY (_agency)
    ORDER BY a.agency FOR SHARE SKIP LOCKED
  )
  -- There is no common data of a number below zero: nothing can be decided on it.
  SELECT array_agg(CASE WHEN h.hold_version = u.version THEN u.snapshot ELSE -1 END ORDER BY u.n) INTO _of
  FROM unnest(_agency, _hold_version, _snapshot) WITH ORDINALITY u(agency, version, snapshot, n)
  LEFT JOIN held h ON h.agency = u.agency;
  RETURN QUERY SELECT d.word FROM chukan.decide_provisions(
      _agency, _generation, _id, _outcome, _reason, _person, _link_version, _of, _outbox,
      _r_id, _r_label, _r_month, _r_sealed, _r_commitment, _r_amends) WITH ORDINALITY d(word, n) ORDER BY d.n;
END $$;

-- put_correction() (0071), told besides how many amendments of the record were seen when this one was made: 'changed'
-- where there are others by now, and nothing is written. Corrections of one record are taken in turn; so is what
-- arrives late for its line, by the line's own row.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_advisory_xact_lock(integer, integer) TO chukan_fn;

CREATE FUNCTION chukan.correct_record(
  _agency integer, _generation integer, _side smallint, _outcome smallint,
  _id uuid, _label bytea, _month date, _sealed bytea, _commitment bytea, _amends uuid,
  _send bytea, _next timestamptz, _seen integer
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _schema text := chukan.schema_of(_agency);
  _now integer;
  _mine boolean;
BEGIN
  PERFORM chukan.check_generation(ARRAY[_agency], ARRAY[_generation]);
  PERFORM pg_advisory_xact_lock(_agency, hashtext(_amends::text));
  PERFORM 1 FROM chukan.inquiry_work w WHERE w.agency = _agency AND w.id = _amends FOR NO KEY UPDATE;
  PERFORM 1 FROM chukan.provision_work w WHERE w.agency = _agency AND w.id = _amends FOR NO KEY UPDATE;
  EXECUTE format('SELECT count(*), coalesce(bool_or(r.id = $4), false) FROM %I.records r
                  WHERE r.agency = $1 AND r.label = $2 AND r.amends = $3', _schema)
    INTO _now, _mine USING _agency, _label, _amends, _id;
  IF _now <> _seen AND NOT _mine THEN
    RETURN NEXT 'changed';
    RETURN;
  END IF;
  RETURN QUERY SELECT p.word FROM chukan.put_correction(_agency, _generation, _side, _outcome, _id, _label, _month,
    _sealed, _commitment, _amends, _send, _next) p(word);
END $$;

CALL chukan.entrust('accept_asked', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('decide_reviews', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('correct_record', 'chukan_fn', 'chukan_broker');
