-- Signing the operations logs as 0053 signs the provision records', and what feeds the operators' log: the audit rows that
-- acts of operators and refused callers leave already.

-- Logs that have grown since their last checkpoint, the longest unsigned first.
CREATE FUNCTION chukan.operations_grown(_limit integer) RETURNS TABLE (agency integer, head bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT h.agency, h.seq FROM chukan.operation_heads h
    LEFT JOIN chukan.agencies a ON a.agency = h.agency AND a.state = 'open'
    WHERE h.seq > h.size AND (a.agency IS NOT NULL OR h.agency = 100000) ORDER BY h.at, h.agency LIMIT _limit;
END $$;

-- Logs that have a checkpoint, and its size: what cosigners look at.
CREATE FUNCTION chukan.operations_signed(_after integer, _limit integer) RETURNS TABLE (agency integer, size bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT h.agency, h.size FROM chukan.operation_heads h
    LEFT JOIN chukan.agencies a ON a.agency = h.agency AND a.state = 'open'
    WHERE h.agency > _after AND h.size > 0 AND (a.agency IS NOT NULL OR h.agency = 100000) ORDER BY h.agency LIMIT _limit;
END $$;

-- A log's last checkpoint; no row where it has none.
CREATE FUNCTION chukan.operations_last(_agency integer) RETURNS TABLE (size bigint, root bytea, note bytea, at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM chukan.check_here(ARRAY[_agency]);
  RETURN QUERY EXECUTE format('SELECT c.size, c.root, c.note, c.at FROM %I.operation_checkpoints c ORDER BY c.size DESC LIMIT 1',
                              chukan.operations_schema(_agency));
END $$;

-- Tiles by their names; those that are not there are left out.
CREATE FUNCTION chukan.operations_tiles(_agency integer, _level smallint[], _n bigint[])
RETURNS TABLE (level smallint, n bigint, hashes bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM chukan.check_here(ARRAY[_agency]);
  RETURN QUERY EXECUTE format('SELECT t.level, t.n, t.hashes FROM unnest($1, $2) u(level, n) JOIN %I.operation_tiles t
                               ON t.level = u.level AND t.n = u.n', chukan.operations_schema(_agency)) USING _level, _n;
END $$;

-- The data of the leaves after a position, at most _limit, in their order.
CREATE FUNCTION chukan.operations_leaves(_agency integer, _after bigint, _limit integer)
RETURNS TABLE (seq bigint, leaf_data bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM chukan.check_here(ARRAY[_agency]);
  RETURN QUERY EXECUTE format('SELECT l.seq, l.leaf_data FROM %I.operation_log l WHERE l.seq > $1 ORDER BY l.seq LIMIT $2',
                              chukan.operations_schema(_agency)) USING _after, _limit;
END $$;

-- Keeps checkpoints and the tiles that they complete; words and rules are those of evidence_sign (0053).
CREATE FUNCTION chukan.operations_sign(
  _agency integer[], _before bigint[], _size bigint[], _root bytea[], _note bytea[],
  _t_agency integer[], _t_level smallint[], _t_n bigint[], _t_hashes bytea[]
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _free boolean := pg_try_advisory_xact_lock(4851205431606);
  _i integer;
  _schema text;
  _last bigint;
  _same boolean;
BEGIN
  PERFORM chukan.check_generation(array_remove(_agency, 100000), NULL);
  FOR _i IN 1 .. cardinality(_agency) LOOP
    IF NOT _free THEN
      RETURN NEXT 'busy';
      CONTINUE;
    END IF;
    _schema := chukan.operations_schema(_agency[_i]);
    _last := NULL;
    EXECUTE format('SELECT c.size, c.note = $1 FROM %I.operation_checkpoints c ORDER BY c.size DESC LIMIT 1', _schema)
      INTO _last, _same USING _note[_i];
    _same := coalesce(_last = _size[_i] AND _same, false);
    IF _same OR coalesce(_last, 0) <> _before[_i] OR _size[_i] <= _before[_i] THEN
      UPDATE chukan.operation_heads h SET size = coalesce(_last, 0) WHERE h.agency = _agency[_i];
      RETURN NEXT CASE WHEN _same THEN 'signed' ELSE 'stale' END;
    ELSE
      EXECUTE format('INSERT INTO %I.operation_tiles (level, n, hashes) SELECT t.level, t.n, t.hashes
                      FROM unnest($1, $2, $3, $4) t(agency, level, n, hashes) WHERE t.agency = %s', _schema, _agency[_i])
        USING _t_agency, _t_level, _t_n, _t_hashes;
      EXECUTE format('INSERT INTO %I.operation_checkpoints (size, root, note) VALUES ($1, $2, $3)', _schema)
        USING _size[_i], _root[_i], _note[_i];
      UPDATE chukan.operation_heads h SET size = _size[_i], at = now() WHERE h.agency = _agency[_i];
      RETURN NEXT 'signed';
    END IF;
  END LOOP;
END $$;

-- Keeps a cosignature beside its checkpoint; false where there is no such checkpoint.
CREATE FUNCTION chukan.operations_cosign(_agency integer, _size bigint, _signer text, _line bytea) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _found boolean;
BEGIN
  PERFORM chukan.check_generation(array_remove(ARRAY[_agency], 100000), NULL);
  EXECUTE format('INSERT INTO %1$I.operation_cosignatures AS s (size, signer, line)
                  SELECT c.size, $2, $3 FROM %1$I.operation_checkpoints c WHERE c.size = $1
                  ON CONFLICT (size, signer) DO UPDATE SET tries = s.tries + 1 RETURNING true',
                 chukan.operations_schema(_agency)) INTO _found USING _size, _signer, _line;
  RETURN coalesce(_found, false);
END $$;

-- What an export of the operators' log reads: checkpoints with their cosignatures, and leaves with their entries.
CREATE FUNCTION chukan.operators_checkpoints(_after bigint, _limit integer) RETURNS TABLE (size bigint, note bytea, lines bytea[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT c.size, c.note, (SELECT array_agg(s.line ORDER BY s.signer)
                                       FROM chukan_operators.operation_cosignatures s WHERE s.size = c.size)
    FROM chukan_operators.operation_checkpoints c WHERE c.size > _after ORDER BY c.size LIMIT least(_limit, 1000);
END $$;
CREATE FUNCTION chukan.operators_leaves(_after bigint, _limit integer)
RETURNS TABLE (seq bigint, leaf_data bytea, leaf_hash bytea, id uuid, body bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT l.seq, l.leaf_data, l.leaf_hash, o.id, o.body FROM chukan_operators.operation_log l
    LEFT JOIN chukan_operators.operations o ON o.id = l.operation
    WHERE l.seq > _after ORDER BY l.seq LIMIT least(_limit, 1024);
END $$;
CREATE FUNCTION chukan.operators_tiles(_first bigint, _end bigint) RETURNS TABLE (n bigint, hashes bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT t.n, t.hashes FROM chukan_operators.operation_tiles t
    WHERE t.level = 0 AND t.n >= _first AND t.n < _end ORDER BY t.n LIMIT 1024;
END $$;
CREATE FUNCTION chukan.operators_unplaced(_limit integer) RETURNS TABLE (id uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT o.id FROM chukan_operators.operations o WHERE o.at < now() - interval '1 minute'
    AND NOT EXISTS (SELECT FROM chukan_operators.operation_log l WHERE l.operation = o.id) ORDER BY o.id LIMIT least(_limit, 100);
END $$;

-- Enters in the operators' log what an audit table of the cell was just given, in the same commit; the row tells who, what,
-- to which kind of thing and whether it was refused. Instants are those of the audit row.
CREATE FUNCTION chukan.enter_operator(
  _at timestamptz, _actor text, _second text, _kind text, _class text, _outcome text, _code text, _subject uuid, _times integer
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _id uuid := gen_random_uuid();
  _salt bytea := decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex');
  _who text := left(coalesce(nullif(regexp_replace(_actor, '[^!-~]', '_', 'g'), ''), '-'), 200);
  _also text := left(nullif(regexp_replace(_second, '[^!-~]', '_', 'g'), ''), 200);
  _canonical bytea := convert_to(json_build_object(
    'id', _id, 'at', to_char(_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'actor', _who, 'second', _also,
    'kind', _kind, 'subject_class', _class, 'outcome', _outcome, 'code', nullif(_code, ''), 'subject', _subject,
    'times', _times)::text, 'UTF8');
BEGIN
  PERFORM chukan.operations_append(ARRAY[100000], ARRAY[_id], ARRAY[sha256(convert_to('operation:' || _who, 'UTF8'))],
                                   ARRAY[_salt || _canonical], ARRAY[sha256('\x02'::bytea || _salt || _canonical)]);
END $$;

CREATE FUNCTION chukan.feed_operators() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  CASE TG_TABLE_NAME
    WHEN 'link_change' THEN
      PERFORM chukan.enter_operator(NEW.at, NEW.who, NEW.second, 'link.' || ltrim(NEW.act, '_'),
        CASE WHEN NEW.link IS NULL THEN 'gateway' ELSE 'link' END, 'done', NULL, NULL, 1);
    WHEN 'access_refused' THEN
      PERFORM chukan.enter_operator(NEW.until, NEW.peer, NULL, 'access.refused', 'exchange', 'refused', NEW.code, NULL, NEW.times);
    WHEN 'orders' THEN
      PERFORM chukan.enter_operator(NEW.at, 'order:' || NEW.id::text, NULL, 'order.' || NEW.action || '.' || NEW.step, 'agency',
        'done', NULL, NEW.id, 1);
    ELSE
      PERFORM chukan.enter_operator(NEW.at, 'key:' || NEW.key, NULL, 'directory.publish', 'directory', 'done', NULL, NULL, 1);
  END CASE;
  RETURN NULL;
END $$;

CALL chukan.entrust('operations_grown', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('operations_signed', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('operations_last', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('operations_tiles', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('operations_leaves', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('operations_sign', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('operations_cosign', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('operators_checkpoints', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('operators_leaves', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('operators_tiles', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('operators_unplaced', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('enter_operator', 'chukan_fn', '');
CALL chukan.entrust('feed_operators', 'chukan_fn', '');

-- ALWAYS: a restore of one agency sets the triggers of its copies aside for its transaction, not this one.
DO $$
DECLARE
  _table name;
BEGIN
  FOREACH _table IN ARRAY ARRAY['link_change', 'access_refused', 'orders', 'snapshot'] LOOP
    EXECUTE format('CREATE TRIGGER feed_operators AFTER INSERT ON chukan.%I FOR EACH ROW EXECUTE FUNCTION chukan.feed_operators()',
                   _table);
    EXECUTE format('ALTER TABLE chukan.%I ENABLE ALWAYS TRIGGER feed_operators', _table);
  END LOOP;
END $$;
