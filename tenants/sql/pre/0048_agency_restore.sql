-- One agency is restored alone (機関単位の復元), on an order of two of its officers (invariant 14). It is frozen as for a
-- move (0046): what was frozen and not restored is opened again by move_thaw().

ALTER TABLE chukan.orders DROP CONSTRAINT orders_action_check;
ALTER TABLE chukan.orders ADD CONSTRAINT orders_action_check CHECK (action IN ('export', 'destroy', 'restore'));

-- Opens a frozen agency in the next generation, in the transaction in which its tables were put back: everything is back
-- and the order carried out, or nothing changed. What was decided on the state of before is refused by the generation,
-- and decided again by the version of its holds.
CREATE FUNCTION chukan.restore_open(_agency integer, _generation integer, _order uuid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _here record;
BEGIN
  SELECT a.state, a.generation INTO _here FROM chukan.agencies a WHERE a.agency = _agency FOR UPDATE;
  IF _here IS NULL OR _here.state <> 'moving' OR _here.generation <> _generation - 1 THEN
    RAISE EXCEPTION USING ERRCODE = 'CK002', MESSAGE = 'stale_generation';
  END IF;
  IF NOT chukan.order_finish(_order) THEN
    PERFORM chukan.defect('an order that was carried out before');
  END IF;
  PERFORM chukan.give_work_back(chukan.schema_of(_agency));
  PERFORM chukan.grant_agency(_agency);
  UPDATE chukan.agencies SET state = 'open', generation = _generation, hold_version = hold_version + 1
    WHERE agency = _agency;
END $$;

CALL chukan.entrust('restore_open', 'chukan_fn', '');
