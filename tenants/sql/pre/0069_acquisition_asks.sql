-- Requests to acquire a linkage code (符号取得の依頼, 施行令26条3項): who asks, and the four facts of the person (氏名・生年月日・
-- 性別・住所), sealed under the provider's own data key. They are deleted when they were fulfilled or declined and their
-- time is over, at the latest 28 days after they came.

CREATE TABLE chukan_plain.acquisition_asks (
  id          uuid PRIMARY KEY,
  state       text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'fulfilled', 'declined')),
  sealed      bytea NOT NULL,
  officer     text,
  received_at timestamptz NOT NULL,
  decided_at  timestamptz
);
CREATE INDEX acquisition_asks_age ON chukan_plain.acquisition_asks (received_at);
ALTER TABLE chukan_plain.acquisition_asks OWNER TO chukan_owner;
ALTER TABLE chukan_plain.acquisition_asks ALTER sealed SET STORAGE EXTERNAL;
SELECT chukan.add_plain_table('acquisition_asks', 'SELECT', 'SELECT, INSERT, UPDATE, DELETE');

-- Requests that the network pushed: 'stored' with the inbox key in the same commit, or 'repeat'.
CREATE FUNCTION chukan.put_acquisition_asks(
  _agency integer[], _message uuid[], _id uuid[], _sealed bytea[], _received_at timestamptz[]
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _fresh boolean[];
  _rows record;
BEGIN
  PERFORM chukan.check_generation(_agency, NULL);
  _fresh := chukan.put_inbox(_agency, _message, array_fill(true, ARRAY[cardinality(_agency)]));
  FOR _rows IN SELECT u.agency, array_agg(u.id) AS id, array_agg(u.sealed) AS sealed, array_agg(u.at) AS at
               FROM unnest(_fresh, _agency, _id, _sealed, _received_at) u(go, agency, id, sealed, at)
               WHERE u.go GROUP BY u.agency ORDER BY u.agency LOOP
    EXECUTE format('INSERT INTO %I.acquisition_asks (id, sealed, received_at)
                    SELECT u.id, u.sealed, u.at FROM unnest($1, $2, $3) u(id, sealed, at)',
                   chukan.schema_of(_rows.agency)) USING _rows.id, _rows.sealed, _rows.at;
  END LOOP;
  RETURN QUERY SELECT CASE WHEN u.fresh THEN 'stored' ELSE 'repeat' END
    FROM unnest(_fresh) WITH ORDINALITY u(fresh, n) ORDER BY u.n;
END $$;

-- What became of a request: the word given ('fulfilled' or 'declined'), also when it is said again; 'late' where it was
-- decided otherwise; 'not_found'.
CREATE FUNCTION chukan.decide_acquisition_ask(
  _agency integer, _generation integer, _id uuid, _word text, _officer text, _at timestamptz
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _found text;
BEGIN
  PERFORM chukan.check_generation(ARRAY[_agency], ARRAY[_generation]);
  EXECUTE format('UPDATE %I.acquisition_asks q SET
                    state = CASE WHEN q.state = ''open'' THEN $2 ELSE q.state END,
                    officer = coalesce(q.officer, $3), decided_at = coalesce(q.decided_at, $4)
                  WHERE q.id = $1 RETURNING q.state', chukan.schema_of(_agency))
    INTO _found USING _id, _word, _officer, _at;
  RETURN NEXT CASE WHEN _found IS NULL THEN 'not_found' WHEN _found = _word THEN _word ELSE 'late' END;
END $$;

-- Deletes requests received before an instant, of at most _agencies agencies behind _after, at most _limit of each;
-- returns the agency where to go on (NULL at the end) and how many went.
CREATE FUNCTION chukan.purge_acquisition_asks(_after integer, _before timestamptz, _agencies integer, _limit integer)
RETURNS TABLE (next integer, gone bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _page integer[] := ARRAY(SELECT a.agency FROM chukan.agencies a WHERE a.agency > _after AND a.state = 'open'
                           ORDER BY a.agency LIMIT _agencies);
  _agency integer;
  _count bigint;
  _gone bigint := 0;
BEGIN
  PERFORM 1 FROM chukan.agencies a WHERE a.agency = ANY (_page) ORDER BY a.agency FOR KEY SHARE;
  FOREACH _agency IN ARRAY _page LOOP
    EXECUTE format('DELETE FROM %1$I.acquisition_asks q WHERE q.id IN (
                      SELECT o.id FROM %1$I.acquisition_asks o WHERE o.received_at < $1
                      ORDER BY o.received_at LIMIT $2 FOR UPDATE SKIP LOCKED)', chukan.schema_of(_agency))
      USING _before, _limit;
    GET DIAGNOSTICS _count = ROW_COUNT;
    _gone := _gone + _count;
  END LOOP;
  RETURN QUERY SELECT CASE WHEN cardinality(_page) = _agencies THEN _page[_agencies] END, _gone;
END $$;

CALL chukan.entrust('put_acquisition_asks', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('decide_acquisition_ask', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('purge_acquisition_asks', 'chukan_fn', 'chukan_broker');
