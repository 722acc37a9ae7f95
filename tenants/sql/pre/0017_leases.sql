-- Leases: a worker holds shards of a side for a time; the epoch in its grants fences it off when it comes too late.

-- Says that a worker is alive for _ttl more, and returns its fair share of the 64 shards among those who are.
CREATE FUNCTION chukan.worker_share(_owner text, _side smallint, _ttl interval) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _now timestamptz := clock_timestamp();
BEGIN
  DELETE FROM chukan.workers w WHERE w.ctid = ANY (ARRAY(
    SELECT o.ctid FROM chukan.workers o WHERE o.until < _now - _ttl FOR UPDATE SKIP LOCKED));
  INSERT INTO chukan.workers (side, owner, until) VALUES (_side, _owner, _now + _ttl)
    ON CONFLICT (side, owner) DO UPDATE SET until = excluded.until;
  RETURN ceil(64.0 / (SELECT count(*) FROM chukan.workers w WHERE w.side = _side AND w.until >= _now));
END $$;

-- Renews what _owner holds, gives back what it holds beyond _want, takes what is free or expired up to _want.
-- A renewal changes no key, so it does not wait for stage functions; a takeover does, and skips a shard whose last
-- holder has a set in flight: it will be free at the next call. _owner is a name that no other process ever has.
CREATE FUNCTION chukan.lease(_owner text, _side smallint, _want integer, _ttl interval)
RETURNS TABLE (shard smallint, epoch bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _now timestamptz := clock_timestamp();
  _mine smallint[];
  _free smallint[];
BEGIN
  SELECT array_agg(o.shard ORDER BY o.shard) INTO _mine
  FROM (SELECT l.shard FROM chukan.leases l WHERE l.side = _side AND l.owner = _owner
        ORDER BY l.shard FOR NO KEY UPDATE) o;
  _mine := coalesce(_mine, '{}');
  UPDATE chukan.leases l SET owner = NULL, until = '-infinity'
    WHERE l.side = _side AND l.shard = ANY (_mine[_want + 1 :]);
  _mine := _mine[: _want];
  UPDATE chukan.leases l SET until = _now + _ttl WHERE l.side = _side AND l.shard = ANY (_mine);

  SELECT array_agg(o.shard) INTO _free
  FROM (SELECT l.shard FROM chukan.leases l
        WHERE l.side = _side AND (l.owner IS NULL OR l.until < _now) AND l.shard <> ALL (_mine)
        ORDER BY l.shard LIMIT _want - cardinality(_mine) FOR UPDATE SKIP LOCKED) o;
  UPDATE chukan.leases l SET owner = _owner, epoch = l.epoch + 1, until = _now + _ttl
    WHERE l.side = _side AND l.shard = ANY (_free);
  RETURN QUERY SELECT l.shard, l.epoch FROM chukan.leases l WHERE l.side = _side AND l.shard = ANY (_mine || _free)
    ORDER BY l.shard;
END $$;

-- Gives everything back at once, so that another worker need not wait for the end of the lease.
CREATE FUNCTION chukan.release(_owner text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM 1 FROM chukan.leases l WHERE l.owner = _owner ORDER BY l.side, l.shard FOR NO KEY UPDATE;
  UPDATE chukan.leases l SET owner = NULL, until = '-infinity' WHERE l.owner = _owner;
  DELETE FROM chukan.workers w WHERE w.owner = _owner;
END $$;

-- After a new (system identifier, timeline): nobody's grant stands any more.
CREATE FUNCTION chukan.raise_epochs() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM 1 FROM chukan.leases l ORDER BY l.side, l.shard FOR UPDATE;
  UPDATE chukan.leases SET epoch = epoch + 1, owner = NULL, until = '-infinity';
END $$;

CALL chukan.entrust('worker_share', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('lease', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('release', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('raise_epochs', 'chukan_fn', 'chukan_broker');
