-- Linkage codes (符号). They rest in plain tables of each agency, so every function goes agency by agency.

-- Opens an acquisition for a person, or finds the open one: there is one row a person, so there cannot be a second open
-- acquisition (SYM-02). The repeat writes (tries), for its answer must be as durable as the first.
CREATE FUNCTION chukan.open_codes(
  _agency integer[], _generation integer[], _person bytea[], _addressee bytea[], _request uuid[]
) RETURNS TABLE (n bigint, person bytea, status smallint, version bigint, request uuid, number bytea, code bytea,
                 code_digest bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _rows record;
BEGIN
  PERFORM chukan.check_generation(_agency, _generation);
  FOR _rows IN SELECT u.agency, array_agg(u.n) AS n, array_agg(u.person) AS person, array_agg(u.addressee) AS addressee,
                      array_agg(u.request) AS request
               FROM unnest(_agency, _person, _addressee, _request)
                    WITH ORDINALITY u(agency, person, addressee, request, n)
               GROUP BY u.agency ORDER BY u.agency LOOP
    RETURN QUERY EXECUTE format(
      'WITH given AS (
         SELECT u.*, row_number() OVER (PARTITION BY u.person ORDER BY u.n) AS turn
         FROM unnest($1, $2, $3, $4) u(n, person, addressee, request)
       ), kept AS (
         INSERT INTO %1$I.codes AS c (person, status, addressee, request)
         SELECT g.person, 1, g.addressee, g.request FROM given g WHERE g.turn = 1 ORDER BY g.person
         ON CONFLICT (person) DO UPDATE SET tries = c.tries + 1
         RETURNING c.person, c.status, c.version, c.request, c.number, c.code, c.code_digest
       ) SELECT g.n, k.* FROM given g JOIN kept k ON k.person = g.person', chukan.schema_of(_rows.agency))
      USING _rows.n, _rows.person, _rows.addressee, _rows.request;
  END LOOP;
END $$;

-- Keeps the network's acquisition number (取得番号) of an open acquisition; the first one stays. Persons without a row
-- are left out of the result.
CREATE FUNCTION chukan.set_numbers(
  _agency integer[], _person bytea[], _request uuid[], _number_digest bytea[], _number bytea[]
) RETURNS TABLE (n bigint, person bytea, status smallint, version bigint, request uuid, number bytea, code bytea,
                 code_digest bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _rows record;
BEGIN
  PERFORM chukan.check_generation(_agency, NULL);
  FOR _rows IN SELECT u.agency, array_agg(u.n) AS n, array_agg(u.person) AS person, array_agg(u.request) AS request,
                      array_agg(u.digest) AS digest, array_agg(u.number) AS number
               FROM unnest(_agency, _person, _request, _number_digest, _number)
                    WITH ORDINALITY u(agency, person, request, digest, number, n)
               GROUP BY u.agency ORDER BY u.agency LOOP
    EXECUTE format('SELECT 1 FROM %I.codes c WHERE c.person = ANY ($1) ORDER BY c.person FOR NO KEY UPDATE',
                   chukan.schema_of(_rows.agency)) USING _rows.person;
    EXECUTE format(
      'UPDATE %I.codes c SET number_digest = coalesce(c.number_digest, u.digest), number = coalesce(c.number, u.number),
              tries = c.tries + 1, at = now()
       FROM (SELECT DISTINCT ON (g.person) g.* FROM unnest($1, $2, $3, $4, $5) g(n, person, request, digest, number)
             ORDER BY g.person, g.n) u
       WHERE c.person = u.person AND c.request = u.request AND c.status = 1', chukan.schema_of(_rows.agency))
      USING _rows.n, _rows.person, _rows.request, _rows.digest, _rows.number;
    RETURN QUERY EXECUTE format(
      'SELECT u.n, c.person, c.status, c.version, c.request, c.number, c.code, c.code_digest
       FROM unnest($1, $2) u(n, person)
       JOIN %I.codes c ON c.person = u.person', chukan.schema_of(_rows.agency)) USING _rows.n, _rows.person;
  END LOOP;
  PERFORM chukan.fence(true);
END $$;

-- The rows (positions n and persons) whose acquisition number is open, locked; of one number only its first row.
CREATE FUNCTION chukan.lock_numbers(_agency integer[], _number_digest bytea[]) RETURNS TABLE (n bigint, person bytea)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _rows record;
BEGIN
  FOR _rows IN SELECT u.agency, array_agg(u.n) AS n, array_agg(u.digest) AS digest
               FROM (SELECT DISTINCT ON (g.agency, g.digest) g.agency, g.digest, g.n
                     FROM unnest(_agency, _number_digest) WITH ORDINALITY g(agency, digest, n)
                     ORDER BY g.agency, g.digest, g.n) u
               GROUP BY u.agency ORDER BY u.agency LOOP
    RETURN QUERY EXECUTE format(
      'SELECT u.n, c.person FROM unnest($1, $2) u(n, digest) JOIN %I.codes c ON c.number_digest = u.digest
       ORDER BY c.person FOR UPDATE OF c', chukan.schema_of(_rows.agency)) USING _rows.n, _rows.digest;
  END LOOP;
END $$;

-- Which of the messages (marked in _go) were taken before.
CREATE FUNCTION chukan.known_messages(_agency integer[], _message uuid[], _go boolean[]) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _rows record;
  _part bigint[];
  _known bigint[] := '{}';
BEGIN
  FOR _rows IN SELECT u.agency, array_agg(u.n) AS n, array_agg(u.message) AS message
               FROM unnest(_agency, _message, _go) WITH ORDINALITY u(agency, message, go, n) WHERE u.go
               GROUP BY u.agency ORDER BY u.agency LOOP
    EXECUTE format(
      'SELECT array_agg(u.n) FROM unnest($1, $2) u(n, message)
       JOIN %1$I.inbox i ON i.agency = %2$s AND i.sender = ''network'' AND i.id = u.message',
      chukan.schema_of(_rows.agency), _rows.agency) INTO _part USING _rows.n, _rows.message;
    _known := _known || coalesce(_part, '{}');
  END LOOP;
  RETURN _known;
END $$;

-- A code that arrived, or the word that it was already acquired (code NULL). The number is deleted in this commit. Two
-- persons can not share a code at one agency: the second one becomes DUPLICATE until an officer has sorted it out.
CREATE FUNCTION chukan.put_codes(
  _agency integer[], _message uuid[], _number_digest bytea[], _code_digest bytea[], _code bytea[]
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _person bytea[];
  _fresh boolean[];
  _known bigint[];
  _rows record;
  _done record;
  _result text[];
BEGIN
  PERFORM chukan.check_generation(_agency, NULL);
  SELECT array_agg(l.person ORDER BY u.n) INTO _person
  FROM unnest(_agency) WITH ORDINALITY u(agency, n)
  LEFT JOIN chukan.lock_numbers(_agency, _number_digest) l ON l.n = u.n;
  _fresh := chukan.put_inbox(_agency, _message, ARRAY(
    SELECT p IS NOT NULL FROM unnest(_person) WITH ORDINALITY u(p, n) ORDER BY n));
  _known := chukan.known_messages(_agency, _message, ARRAY(
    SELECT NOT f FROM unnest(_fresh) WITH ORDINALITY u(f, n) ORDER BY n));
  _result := ARRAY(SELECT CASE WHEN u.n = ANY (_known) THEN 'repeat' ELSE 'unknown' END
                   FROM unnest(_agency) WITH ORDINALITY u(agency, n) ORDER BY u.n);
  FOR _rows IN SELECT u.agency, array_agg(u.n) AS n, array_agg(u.person) AS person, array_agg(u.digest) AS digest,
                      array_agg(u.code) AS code
               FROM unnest(_fresh, _agency, _person, _code_digest, _code)
                    WITH ORDINALITY u(go, agency, person, digest, code, n)
               WHERE u.go GROUP BY u.agency ORDER BY u.agency LOOP
    FOR _done IN EXECUTE format(
      'UPDATE %1$I.codes c SET
         status = CASE WHEN u.wins THEN 2 WHEN c.status = 1 THEN 5 ELSE c.status END, version = c.version + 1,
         code_digest = CASE WHEN u.wins THEN u.digest ELSE c.code_digest END,
         code = CASE WHEN u.wins THEN u.code ELSE c.code END,
         number = NULL, number_digest = NULL, request = NULL, at = now()
       FROM (SELECT g.*, g.code IS NOT NULL AND row_number() OVER (PARTITION BY g.digest ORDER BY g.n) = 1
                    AND NOT EXISTS (SELECT FROM %1$I.codes o
                                    WHERE o.code_digest = g.digest AND o.person <> g.person) AS wins
             FROM unnest($1, $2, $3, $4) g(n, person, digest, code)) u
       WHERE c.person = u.person RETURNING u.n, c.status', chukan.schema_of(_rows.agency))
      USING _rows.n, _rows.person, _rows.digest, _rows.code
    LOOP
      _result[_done.n] := CASE WHEN _done.status = 5 THEN 'duplicate' ELSE 'applied' END;
    END LOOP;
  END LOOP;
  PERFORM chukan.fence('repeat' = ANY (_result));
  RETURN QUERY SELECT u.result FROM unnest(_result) WITH ORDINALITY u(result, n) ORDER BY u.n;
END $$;

CREATE FUNCTION chukan.find_codes(_agency integer[], _person bytea[])
RETURNS TABLE (n bigint, person bytea, status smallint, version bigint, request uuid, number bytea, code bytea,
                 code_digest bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _rows record;
BEGIN
  FOR _rows IN SELECT u.agency, a.agency AS here, array_agg(u.n) AS n, array_agg(u.person) AS person
               FROM unnest(_agency, _person) WITH ORDINALITY u(agency, person, n)
               LEFT JOIN chukan.agencies a ON a.agency = u.agency AND a.state = 'open'
               GROUP BY u.agency, a.agency ORDER BY u.agency LOOP
    IF _rows.here IS NULL THEN
      RAISE EXCEPTION USING ERRCODE = 'CK002', MESSAGE = 'stale_generation';
    END IF;
    RETURN QUERY EXECUTE format(
      'SELECT u.n, c.person, c.status, c.version, c.request, c.number, c.code, c.code_digest
       FROM unnest($1, $2) u(n, person)
       JOIN %I.codes c ON c.person = u.person', chukan.schema_of(_rows.agency)) USING _rows.n, _rows.person;
  END LOOP;
END $$;

CALL chukan.entrust('open_codes', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('set_numbers', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('lock_numbers', 'chukan_fn', '');
CALL chukan.entrust('known_messages', 'chukan_fn', '');
CALL chukan.entrust('put_codes', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('find_codes', 'chukan_fn', 'chukan_broker');
