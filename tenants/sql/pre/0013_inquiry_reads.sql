-- Inquirer: finding work, seeing states, collecting answers and purging them.

-- Lines that are due, of open state, in the worker's shards. Each shard gives its share first, so that one agency's
-- flood does not hide the others; only when that does not fill the set is each asked for more.
CREATE FUNCTION chukan.due_inquiries(_shards smallint[], _limit integer)
RETURNS TABLE (agency integer, id uuid, state smallint, tries integer, deadline timestamptz, outbox boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _share integer := least(_limit, 1 + 2 * _limit / greatest(cardinality(_shards), 1));
  _found chukan.inquiry_work[];
BEGIN
  LOOP
    _found := ARRAY(
      SELECT w.line FROM unnest(_shards) s(shard) CROSS JOIN LATERAL (
        SELECT i.line, i.due, row_number() OVER (ORDER BY i.due) AS place
        FROM (SELECT d AS line, d.due FROM chukan.inquiry_work d
              WHERE d.shard = s.shard AND d.due <= now() AND d.state IN (10, 20, 30, 40)
              ORDER BY d.due LIMIT _share) i
      ) w ORDER BY w.place, w.due LIMIT _limit);
    EXIT WHEN _share >= _limit OR cardinality(_found) >= _limit;
    _share := _limit;
  END LOOP;
  RETURN QUERY SELECT f.agency, f.id, f.state, f.tries, f.deadline, f.outbox FROM unnest(_found) f;
END $$;

CREATE FUNCTION chukan.take_inquiries(_shards smallint[], _epochs bigint[], _limit integer)
RETURNS TABLE (agency integer, id uuid, state smallint, tries integer, deadline timestamptz, request bytea,
               outbox bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _found record;
BEGIN
  PERFORM chukan.check_grants(1::smallint, _shards, _epochs);
  FOR _found IN SELECT d.agency, array_agg(d.id) AS ids, array_agg(d.state) AS states, array_agg(d.tries) AS tries,
                       array_agg(d.deadline) AS deadlines, array_agg(d.outbox) AS sends
                FROM chukan.due_inquiries(_shards, _limit) d GROUP BY d.agency ORDER BY d.agency LOOP
    RETURN QUERY EXECUTE format(
      'SELECT %2$s, u.id, u.state, u.tries, u.deadline, q.request, o.sealed
       FROM unnest($1, $2, $3, $4, $5) u(id, state, tries, deadline, sends)
       JOIN %1$I.queries q ON q.agency = %2$s AND q.id = u.id
       LEFT JOIN %1$I.outbox o ON u.sends AND o.agency = %2$s AND o.id = u.id',
      chukan.schema_of(_found.agency), _found.agency)
      USING _found.ids, _found.states, _found.tries, _found.deadlines, _found.sends;
  END LOOP;
END $$;

-- The facts of the named lines, to build their records from; lines that are not there are left out.
CREATE FUNCTION chukan.read_requests(_agency integer[], _id uuid[])
RETURNS TABLE (n bigint, state smallint, person bytea, request bytea, deadline timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _found record;
BEGIN
  FOR _found IN SELECT u.agency, array_agg(u.n) AS n, array_agg(u.id) AS ids
                FROM unnest(_agency, _id) WITH ORDINALITY u(agency, id, n)
                JOIN chukan.agencies a ON a.agency = u.agency GROUP BY u.agency ORDER BY u.agency LOOP
    RETURN QUERY EXECUTE format(
      'SELECT u.n, w.state, q.person, q.request, w.deadline FROM unnest($1, $2) u(n, id)
       JOIN chukan.inquiry_work w ON w.agency = %2$s AND w.id = u.id
       JOIN %1$I.queries q ON q.agency = %2$s AND q.id = u.id',
      chukan.schema_of(_found.agency), _found.agency) USING _found.n, _found.ids;
  END LOOP;
END $$;

-- States of one agency's lines: of the named ones, of a batch, of a state, or all; pages go by id.
CREATE FUNCTION chukan.inquiry_views(
  _agency integer, _batch uuid, _ids uuid[], _state smallint, _after uuid, _limit integer
) RETURNS TABLE (id uuid, batch uuid, ordinal integer, state smallint, outcome smallint, reason text,
                 updated_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  IF _ids IS NOT NULL THEN
    RETURN QUERY SELECT w.id, w.batch, w.ordinal, w.state, w.outcome, w.reason, w.updated_at FROM chukan.inquiry_work w
      WHERE w.agency = _agency AND w.id = ANY (_ids) ORDER BY w.id LIMIT _limit;
  ELSIF _batch IS NOT NULL THEN
    RETURN QUERY SELECT w.id, w.batch, w.ordinal, w.state, w.outcome, w.reason, w.updated_at FROM chukan.inquiry_work w
      WHERE w.agency = _agency AND w.batch = _batch ORDER BY w.ordinal LIMIT _limit;
  ELSIF _state IS NOT NULL THEN
    RETURN QUERY SELECT w.id, w.batch, w.ordinal, w.state, w.outcome, w.reason, w.updated_at FROM chukan.inquiry_work w
      WHERE w.agency = _agency AND w.state = _state AND w.id > coalesce(_after, '00000000-0000-0000-0000-000000000000')
      ORDER BY w.id LIMIT _limit;
  ELSE
    RETURN QUERY SELECT w.id, w.batch, w.ordinal, w.state, w.outcome, w.reason, w.updated_at FROM chukan.inquiry_work w
      WHERE w.agency = _agency AND w.id > coalesce(_after, '00000000-0000-0000-0000-000000000000')
      ORDER BY w.id LIMIT _limit;
  END IF;
END $$;

-- ANSWERED becomes COLLECTED and comes with its answer, again and again until it is purged; any other line comes
-- without. What was collected before is fenced: the first collection must be durable before it is told of twice.
CREATE FUNCTION chukan.collect(_agency integer, _generation integer, _ids uuid[])
RETURNS TABLE (id uuid, batch uuid, ordinal integer, state smallint, outcome smallint, reason text,
               updated_at timestamptz, answer bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _agencies integer[] := array_fill(_agency, ARRAY[cardinality(_ids)]);
  _was smallint[];
  _go boolean[];
BEGIN
  PERFORM chukan.check_generation(ARRAY[_agency], ARRAY[_generation]);
  _was := chukan.lock_inquiries(_agencies, _ids);
  _go := ARRAY(SELECT coalesce(u.was = 50, false) AND row_number() OVER (PARTITION BY u.id ORDER BY u.n) = 1
               FROM unnest(_ids, _was) WITH ORDINALITY u(id, was, n) ORDER BY u.n);
  UPDATE chukan.inquiry_work w SET state = 80, updated_at = now()
    WHERE w.agency = _agency AND w.id = ANY (_ids) AND w.state = 50;
  PERFORM chukan.put_events(1::smallint, _agencies, _ids, _go, _was,
                            array_fill(80::smallint, ARRAY[cardinality(_ids)]));
  PERFORM chukan.fence(false = ANY (_go));
  RETURN QUERY EXECUTE format(
    'SELECT w.id, w.batch, w.ordinal, w.state, w.outcome, w.reason, w.updated_at, a.sealed
     FROM (SELECT u.id, min(u.n) AS n FROM unnest($1) WITH ORDINALITY u(id, n) GROUP BY u.id) u
     JOIN chukan.inquiry_work w ON w.agency = %2$s AND w.id = u.id
     LEFT JOIN %1$I.answers a ON w.state = 80 AND a.agency = %2$s AND a.id = u.id ORDER BY u.n',
    chukan.schema_of(_agency), _agency) USING _ids;
END $$;

-- Deletes the answers of lines that ended before _before (INQ-09): the line becomes PURGED, its record stays. A line
-- that has been purged for as long again leaves the work table. Returns how many lines were purged.
CREATE FUNCTION chukan.purge_results(_shards smallint[], _epochs bigint[], _before timestamptz, _limit integer)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _agency integer[];
  _id uuid[];
  _was smallint[];
  _found record;
BEGIN
  SELECT array_agg(w.agency), array_agg(w.id) INTO _agency, _id
  FROM (SELECT d.agency, d.id FROM chukan.inquiry_work d
        WHERE d.shard = ANY (_shards) AND d.state >= 50 AND d.updated_at < _before LIMIT _limit) w;
  PERFORM chukan.check_leases(1::smallint, _shards, _epochs, coalesce(_agency, '{}'));
  SELECT array_agg(l.agency), array_agg(l.id), array_agg(l.state) INTO _agency, _id, _was
  FROM (SELECT w.agency, w.id, w.state FROM unnest(_agency, _id) u(agency, id)
        JOIN chukan.inquiry_work w ON w.agency = u.agency AND w.id = u.id
        WHERE w.state >= 50 AND w.updated_at < _before ORDER BY w.agency, w.id FOR UPDATE OF w SKIP LOCKED) l;
  IF _id IS NULL THEN
    RETURN 0;
  END IF;
  DELETE FROM chukan.inquiry_work w USING unnest(_agency, _id, _was) u(agency, id, was)
    WHERE u.was = 90 AND w.agency = u.agency AND w.id = u.id;
  FOR _found IN SELECT u.agency, array_agg(u.id) AS ids FROM unnest(_agency, _id, _was) u(agency, id, was)
                WHERE u.was < 90 GROUP BY u.agency LOOP
    EXECUTE format('DELETE FROM %1$I.answers WHERE agency = %2$s AND id = ANY ($1)',
                   chukan.schema_of(_found.agency), _found.agency) USING _found.ids;
  END LOOP;
  UPDATE chukan.inquiry_work w SET state = 90, updated_at = now() FROM unnest(_agency, _id, _was) u(agency, id, was)
    WHERE u.was < 90 AND w.agency = u.agency AND w.id = u.id;
  PERFORM chukan.put_events(1::smallint, _agency, _id, ARRAY(SELECT u < 90 FROM unnest(_was) u), _was,
                            array_fill(90::smallint, ARRAY[cardinality(_id)]));
  RETURN (SELECT count(*) FROM unnest(_was) u WHERE u < 90);
END $$;

CALL chukan.entrust('due_inquiries', 'chukan_fn', '');
CALL chukan.entrust('take_inquiries', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('read_requests', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('inquiry_views', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('collect', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('purge_results', 'chukan_fn', 'chukan_broker');
