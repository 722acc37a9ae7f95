-- Corrections of records (訂正, 番号法31条による読替え後の個人情報保護法97条): an amendment that names the record, and for
-- the agency that corrects the message to the network, kept until it was taken. sealed is the message's exact bytes
-- under the agency's data key; its id is the amendment's.
CREATE TABLE chukan_plain.corrections (
  id      uuid PRIMARY KEY,
  sealed  bytea NOT NULL,
  next_at timestamptz NOT NULL,
  told_at timestamptz,
  at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX corrections_untold ON chukan_plain.corrections (next_at) WHERE told_at IS NULL;
ALTER TABLE chukan_plain.corrections OWNER TO chukan_owner;
ALTER TABLE chukan_plain.corrections ALTER sealed SET STORAGE EXTERNAL;
DO $$
BEGIN
  PERFORM chukan.add_plain_table('corrections', 'SELECT', 'SELECT, INSERT, UPDATE');
END $$;

-- Appends the amendment of a record that stands, once: its id follows from what it is about, so a repeat finds it. With
-- _send, the message to the network becomes durable in the same commit. 'applied', 'repeat', or 'unknown' (no such
-- record: nothing is written).
CREATE FUNCTION chukan.put_correction(
  _agency integer, _generation integer, _side smallint, _outcome smallint,
  _id uuid, _label bytea, _month date, _sealed bytea, _commitment bytea, _amends uuid,
  _send bytea, _next timestamptz
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _schema text := chukan.schema_of(_agency);
  _found uuid[];
BEGIN
  PERFORM chukan.check_generation(ARRAY[_agency], ARRAY[_generation]);
  EXECUTE format('SELECT array_agg(r.id) FROM %I.records r WHERE r.agency = $1 AND r.id IN ($2, $3)', _schema)
    INTO _found USING _agency, _id, _amends;
  IF _id = ANY (_found) THEN
    PERFORM chukan.fence(true);
    RETURN NEXT 'repeat';
    RETURN;
  ELSIF _amends <> ALL (coalesce(_found, '{}')) THEN
    RETURN NEXT 'unknown';
    RETURN;
  END IF;
  BEGIN
    PERFORM chukan.put_counted_records(_side, ARRAY[_outcome], ARRAY[_agency], ARRAY[_amends], ARRAY[true],
      ARRAY[_id], ARRAY[_label], ARRAY[_month], ARRAY[_sealed], ARRAY[_commitment], ARRAY[_amends]);
  EXCEPTION WHEN unique_violation THEN
    -- Two brought the same correction at once: this one waited, and finds the other's.
    PERFORM chukan.fence(true);
    RETURN NEXT 'repeat';
    RETURN;
  END;
  IF _send IS NOT NULL THEN
    EXECUTE format('INSERT INTO %I.corrections (id, sealed, next_at) VALUES ($1, $2, $3)', _schema)
      USING _id, _send, _next;
  END IF;
  RETURN NEXT 'applied';
END $$;

-- Messages to the network that are due at the next _count open agencies behind _after, oldest first; each is due again
-- at _next. The last row says where to go on (its id is NULL), 0 at the end.
CREATE FUNCTION chukan.take_corrections(_after integer, _count integer, _limit integer, _now timestamptz, _next timestamptz)
RETURNS TABLE (agency integer, id uuid, sealed bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _agency integer;
  _last integer := 0;
  _seen integer := 0;
BEGIN
  FOR _agency IN SELECT a.agency FROM chukan.agencies a WHERE a.agency > _after AND a.state = 'open'
                 ORDER BY a.agency LIMIT _count LOOP
    RETURN QUERY EXECUTE format(
      'UPDATE %1$I.corrections c SET next_at = $3 WHERE c.id IN (
         SELECT o.id FROM %1$I.corrections o WHERE o.told_at IS NULL AND o.next_at <= $2
         ORDER BY o.next_at LIMIT $4 FOR UPDATE SKIP LOCKED) RETURNING $1, c.id, c.sealed', chukan.schema_of(_agency))
      USING _agency, _now, _next, _limit;
    _last := _agency;
    _seen := _seen + 1;
  END LOOP;
  RETURN QUERY SELECT CASE WHEN _seen = _count THEN _last ELSE 0 END, NULL::uuid, NULL::bytea;
END $$;

-- The network has these now.
CREATE FUNCTION chukan.told_corrections(_agency integer, _ids uuid[], _at timestamptz) RETURNS SETOF integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _count integer;
BEGIN
  PERFORM chukan.check_generation(ARRAY[_agency], NULL);
  EXECUTE format('UPDATE %I.corrections c SET told_at = coalesce(c.told_at, $2) WHERE c.id = ANY ($1)',
                 chukan.schema_of(_agency)) USING _ids, _at;
  GET DIAGNOSTICS _count = ROW_COUNT;
  RETURN NEXT _count;
END $$;

CALL chukan.entrust('put_correction', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('take_corrections', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('told_corrections', 'chukan_fn', 'chukan_broker');
