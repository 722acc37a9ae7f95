-- Callers whose tunnel, certificate, path or function did not agree, and who were refused for it (接続の拒否記録): who
-- they are by their certificate, whose tunnel they came through, and how often. Registered ids and codes of bodies only.
--
-- Append-only: nobody changes or deletes a line, the functions' owner neither. What an exchange writes is known by an id
-- that it made, so that a call may be repeated; only `tries` is counted up then, which makes the repeat as durable as the
-- first time.

CREATE TABLE chukan.access_refused (
  id       uuid PRIMARY KEY,
  at       timestamptz NOT NULL,
  until    timestamptz NOT NULL CHECK (until >= at),
  exchange text NOT NULL CHECK (length(exchange) BETWEEN 1 AND 64),
  peer     text NOT NULL CHECK (length(peer) <= 200),
  body     text NOT NULL CHECK (length(body) <= 6),
  tunnel   text NOT NULL CHECK (length(tunnel) <= 5),
  code     text NOT NULL CHECK (length(code) <= 64),
  times    integer NOT NULL CHECK (times >= 1),
  tries    integer NOT NULL DEFAULT 1
);
CREATE INDEX access_refused_until ON chukan.access_refused (until);
ALTER TABLE chukan.access_refused OWNER TO chukan_fn;
REVOKE UPDATE, DELETE, TRUNCATE ON chukan.access_refused FROM chukan_fn;
GRANT UPDATE (tries) ON chukan.access_refused TO chukan_fn;
COMMENT ON TABLE chukan.access_refused IS
  'callers that were refused: at and until are the first and the last of `times` by the exchange''s clock';

-- Enters what an exchange refused, at most 200 lines; returns how many are there now that were given.
CREATE FUNCTION chukan.enter_refusals(
  _id uuid[], _at timestamptz[], _until timestamptz[], _exchange text[], _peer text[], _body text[], _tunnel text[],
  _code text[], _times integer[]
) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _count integer;
BEGIN
  IF cardinality(_id) > 200 THEN
    PERFORM chukan.defect('more refusals than a set');
  END IF;
  INSERT INTO chukan.access_refused AS r (id, at, until, exchange, peer, body, tunnel, code, times)
    SELECT * FROM unnest(_id, _at, _until, _exchange, _peer, _body, _tunnel, _code, _times)
    ON CONFLICT (id) DO UPDATE SET tries = r.tries + 1;
  GET DIAGNOSTICS _count = ROW_COUNT;
  RETURN _count;
END $$;

-- What was refused since an instant, the newest first: of a body (by its certificate or through its tunnel), or all.
CREATE FUNCTION chukan.refusals(_since timestamptz, _body text, _limit integer)
RETURNS SETOF chukan.access_refused
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY SELECT r.* FROM chukan.access_refused r
    WHERE r.until >= _since AND (_body IS NULL OR r.body = _body OR r.tunnel = left(_body, 5))
    ORDER BY r.until DESC, r.id DESC LIMIT least(_limit, 1000);
END $$;

CALL chukan.entrust('enter_refusals', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('refusals', 'chukan_fn', 'chukan_steward');
