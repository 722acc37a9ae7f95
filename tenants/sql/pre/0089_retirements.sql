-- A retirement of old key versions (鍵の廃止) that was interrupted goes on at the version that its order was begun with,
-- not at whatever is newest by then; and a floor that nobody proved is found without the order that raised it.

-- Which version each order to retire was begun with. Like the book of orders it only grows.
CREATE TABLE chukan.retirements (
  id      uuid PRIMARY KEY,
  agency  integer NOT NULL,
  version integer NOT NULL CHECK (version BETWEEN 1 AND 256),
  at      timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN chukan.retirements.version IS 'data keys of versions below are what the officers ordered destroyed';
ALTER TABLE chukan.retirements OWNER TO chukan_fn;
REVOKE UPDATE, DELETE, TRUNCATE ON chukan.retirements FROM chukan_fn;

-- Names the version of an order that was begun: the given one at the first call, and the same ever after.
CREATE FUNCTION chukan.retirement_name(_id uuid, _agency integer, _version integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM chukan.orders o WHERE o.id = _id AND o.agency = _agency AND o.action = 'retire') THEN
    RAISE EXCEPTION USING ERRCODE = 'CK003', MESSAGE = 'no such order was begun';
  END IF;
  INSERT INTO chukan.retirements (id, agency, version) VALUES (_id, _agency, _version) ON CONFLICT (id) DO NOTHING;
  IF NOT FOUND THEN
    PERFORM chukan.fence(true);
  END IF;
  RETURN (SELECT r.version FROM chukan.retirements r WHERE r.id = _id);
END $$;

-- Retirements that were begun and not carried out, oldest first; at most _most.
CREATE FUNCTION chukan.retirements_begun(_most integer)
RETURNS TABLE (id uuid, agency integer, version integer, at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT r.id, r.agency, r.version, r.at FROM chukan.retirements r
    WHERE NOT EXISTS (SELECT FROM chukan.orders o WHERE o.id = r.id AND o.step = 'done') ORDER BY r.at LIMIT _most;
END $$;

-- The floors of all agencies' tables that stand and were not proven: somebody was interrupted between the two steps.
CREATE FUNCTION chukan.key_floors_open(_most integer)
RETURNS TABLE (agency integer, relation text, sealed text, version integer)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT substr(n.nspname, 2)::integer, t.relname::text, p.sealed, substring(c.conname, '[0-9]+$')::integer
    FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
    JOIN chukan.list_sealed_places() p
      ON p.relation = t.relname AND c.conname ~ ('^key_floor_' || p.sealed || '_[0-9]+$')
    WHERE n.nspname ~ '^a[0-9]{5}$' AND NOT c.convalidated ORDER BY 1, 2, 3 LIMIT _most;
END $$;

CALL chukan.entrust('retirement_name', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('retirements_begun', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('key_floors_open', 'chukan_owner', 'chukan_steward');
