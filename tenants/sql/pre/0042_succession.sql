-- Succession: an exchange that was killed and starts again need not wait until its own former leases have run out.

-- An owner is a process: its exchange's name, a hyphen and eight hexadecimal digits of its own. Gives back what every
-- other process of the same name holds of a side, and forgets that they were alive; returns how many shards came free.
-- Called before a process's first lease. Should a predecessor still be at work, its epochs end with the next lease of
-- its shards, as with any takeover, and a set that it has in flight is waited for there. Locks as release() takes them.
CREATE FUNCTION chukan.succeed(_owner text, _side smallint) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _form CONSTANT text := '-[0-9a-f]{8}$';
  _name text := left(_owner, -9);
  _left smallint[];
BEGIN
  IF _owner !~ _form THEN
    PERFORM chukan.defect('an owner without a number of its own');
  END IF;
  _left := ARRAY(
    SELECT l.shard FROM chukan.leases l
    WHERE l.side = _side AND l.owner <> _owner AND l.owner ~ _form AND left(l.owner, -9) = _name
    ORDER BY l.shard FOR NO KEY UPDATE);
  UPDATE chukan.leases l SET owner = NULL, until = '-infinity' WHERE l.side = _side AND l.shard = ANY (_left);
  -- One that is just being renewed or deleted is passed over: nobody waits here while others wait for the leases.
  DELETE FROM chukan.workers w WHERE w.ctid = ANY (ARRAY(
    SELECT o.ctid FROM chukan.workers o
    WHERE o.side = _side AND o.owner <> _owner AND o.owner ~ _form AND left(o.owner, -9) = _name
    FOR UPDATE SKIP LOCKED));
  RETURN cardinality(_left);
END $$;

CALL chukan.entrust('succeed', 'chukan_fn', 'chukan_broker');
