-- Orders of agencies to the operator (指示書) that were taken up: each has its effect once. Append-only; a row says that
-- an order was begun, a second one that it was carried out. The order itself stays with the agency and the archive.

CREATE TABLE chukan.orders (
  id     uuid NOT NULL,
  step   text NOT NULL CHECK (step IN ('begun', 'done')),
  agency integer NOT NULL,
  action text NOT NULL CHECK (action IN ('export', 'destroy')),
  digest bytea NOT NULL CHECK (octet_length(digest) = 32),
  at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (id, step)
);
COMMENT ON COLUMN chukan.orders.digest IS 'SHA-256 of what the officers signed: under one id there is one order';
ALTER TABLE chukan.orders OWNER TO chukan_fn;
REVOKE UPDATE, DELETE, TRUNCATE ON chukan.orders FROM chukan_fn;

-- Takes an order up and tells how it stood before: 'new'; 'begun' (an interrupted one may go on); 'done'; 'other' when
-- something else was signed under this id, and nothing is written then.
CREATE FUNCTION chukan.order_begin(_id uuid, _agency integer, _action text, _digest bytea) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO chukan.orders (id, step, agency, action, digest) VALUES (_id, 'begun', _agency, _action, _digest)
    ON CONFLICT (id, step) DO NOTHING;
  IF FOUND THEN
    RETURN 'new';
  END IF;
  PERFORM chukan.fence(true);
  IF NOT EXISTS (SELECT FROM chukan.orders o WHERE o.id = _id AND o.step = 'begun' AND o.agency = _agency
                 AND o.action = _action AND o.digest = _digest) THEN
    RETURN 'other';
  END IF;
  RETURN CASE WHEN EXISTS (SELECT FROM chukan.orders o WHERE o.id = _id AND o.step = 'done') THEN 'done' ELSE 'begun' END;
END $$;

-- Marks an order that was begun as carried out; false when it was already, or was never begun.
CREATE FUNCTION chukan.order_finish(_id uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO chukan.orders (id, step, agency, action, digest)
    SELECT o.id, 'done', o.agency, o.action, o.digest FROM chukan.orders o WHERE o.id = _id AND o.step = 'begun'
    ON CONFLICT (id, step) DO NOTHING;
  IF NOT FOUND THEN
    PERFORM chukan.fence(true);
    RETURN false;
  END IF;
  RETURN true;
END $$;

-- Waits for the turn to bring new agencies into being and has it until the connection ends. Two operators would else
-- make keys under one number at the same time. Whoever only changes what is there (a kill switch) never waits here.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_advisory_lock(bigint) TO chukan_fn;
CREATE FUNCTION chukan.arrival_turn() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '60s' AS $$
BEGIN
  PERFORM pg_advisory_lock(4851205431603);
END $$;

CALL chukan.entrust('arrival_turn', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('order_begin', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('order_finish', 'chukan_fn', 'chukan_steward');
