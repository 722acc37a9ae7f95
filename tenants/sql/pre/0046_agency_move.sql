-- An agency moves to another cell (DESIGN §7): frozen where it is, copied, compared, and opened in the next generation.
--
-- States of an agency in a cell, beside 'open' and 'closed': 'moving' is frozen where it lives; 'arriving' is being filled
-- where it will live; 'moved' has gone, and what is left here is kept, frozen, until it is destroyed by a step of its own.
-- In all three every set that names the agency is refused (CK002), and its role has no right to any of its tables.
-- The functions below are called by an administrator only, as himself: nobody else may, and they have no rights to lend.

ALTER TABLE chukan.agencies DROP CONSTRAINT agencies_state_check;
ALTER TABLE chukan.agencies ADD CONSTRAINT agencies_state_check
  CHECK (state IN ('open', 'closed', 'moving', 'arriving', 'moved'));

-- The cell's tables that hold rows of an agency until they are worked off.
CREATE FUNCTION chukan.work_tables() RETURNS text[]
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN ARRAY['inquiry_work', 'provision_work', 'to_sequence'];
END $$;

-- A table's columns that are given on insertion, in their order.
CREATE FUNCTION chukan.given_columns(_table regclass, _without text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a
          WHERE a.attrelid = _table AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
            AND a.attname IS DISTINCT FROM _without);
END $$;

-- Makes the tables that rows of work are kept in while nobody may work on them.
CREATE FUNCTION chukan.make_kept_work(_schema text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _table text;
BEGIN
  FOREACH _table IN ARRAY chukan.work_tables() LOOP
    EXECUTE format('CREATE TABLE %I.%I AS SELECT %s FROM chukan.%I WITH NO DATA', _schema, 'kept_' || _table,
                   chukan.given_columns(format('chukan.%I', _table)::regclass, NULL), _table);
    EXECUTE format('ALTER TABLE %I.%I OWNER TO chukan_owner', _schema, 'kept_' || _table);
  END LOOP;
END $$;

-- Gives the kept rows back to the workers, records in the order in which they waited for their place.
CREATE FUNCTION chukan.give_work_back(_schema text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _table text;
  _columns text;
BEGIN
  FOREACH _table IN ARRAY chukan.work_tables() LOOP
    _columns := chukan.given_columns(format('chukan.%I', _table)::regclass, 'n');
    EXECUTE format('INSERT INTO chukan.%I (%s) SELECT %s FROM %I.%I ORDER BY %s', _table, _columns, _columns, _schema,
                   'kept_' || _table, CASE WHEN _table = 'to_sequence' THEN 'n' ELSE 'agency, id' END);
    EXECUTE format('DROP TABLE %I.%I', _schema, 'kept_' || _table);
  END LOOP;
END $$;

CREATE FUNCTION chukan.revoke_agency(_schema text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM %I', _schema, _schema);
END $$;

-- Freezes an agency: waits for its sets in flight, takes its lines from the workers, and its rights from its role. What is
-- in flight at the network finds no line on its return and changes nothing. False when it is frozen already.
CREATE FUNCTION chukan.move_freeze(_agency integer, _generation integer) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
  _schema text := chukan.schema_of(_agency);
  _here record;
  _table text;
  _columns text;
BEGIN
  SELECT a.state, a.generation INTO _here FROM chukan.agencies a WHERE a.agency = _agency FOR UPDATE;
  IF _here.state = 'moving' AND _here.generation = _generation THEN
    PERFORM chukan.fence(true);
    RETURN false;
  END IF;
  IF _here IS NULL OR _here.state <> 'open' OR _here.generation <> _generation THEN
    RAISE EXCEPTION USING ERRCODE = 'CK002', MESSAGE = 'stale_generation';
  END IF;
  -- No sequencer may have taken rows that vanish here; it is asked, not waited for.
  IF NOT pg_try_advisory_xact_lock(4851205431602) THEN
    RAISE EXCEPTION USING ERRCODE = '55P03', MESSAGE = 'the sequencer is at work';
  END IF;
  UPDATE chukan.agencies SET state = 'moving' WHERE agency = _agency;
  PERFORM chukan.make_kept_work(_schema);
  FOREACH _table IN ARRAY chukan.work_tables() LOOP
    _columns := chukan.given_columns(format('chukan.%I', _table)::regclass, NULL);
    EXECUTE format('WITH gone AS (DELETE FROM chukan.%I WHERE agency = $1 RETURNING %s) INSERT INTO %I.%I SELECT %s FROM gone',
                   _table, _columns, _schema, 'kept_' || _table, _columns) USING _agency;
  END LOOP;
  PERFORM chukan.revoke_agency(_schema);
  RETURN true;
END $$;

-- Takes a freeze back.
CREATE FUNCTION chukan.move_thaw(_agency integer) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _state text;
BEGIN
  SELECT a.state INTO _state FROM chukan.agencies a WHERE a.agency = _agency FOR UPDATE;
  IF _state IS DISTINCT FROM 'moving' THEN
    PERFORM chukan.defect('an agency that is not moving');
  END IF;
  PERFORM chukan.give_work_back(chukan.schema_of(_agency));
  PERFORM chukan.grant_agency(_agency);
  UPDATE chukan.agencies SET state = 'open' WHERE agency = _agency;
  RETURN true;
END $$;

-- Makes empty tables for an agency that is to arrive here, or empties those of an arrival that was interrupted. Returns the
-- state that stands in the way: of an agency that lives here, or once lived here and left something behind.
CREATE FUNCTION chukan.move_receive(_agency integer, _generation integer) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
  _schema text := chukan.schema_of(_agency);
  _state text;
  _tables text;
BEGIN
  SELECT a.state INTO _state FROM chukan.agencies a WHERE a.agency = _agency FOR UPDATE;
  IF _state IS NULL THEN
    IF NOT chukan.birth(_agency, _generation, NULL) THEN
      RETURN 'remains';
    END IF;
    UPDATE chukan.agencies SET state = 'arriving' WHERE agency = _agency;
    PERFORM chukan.make_kept_work(_schema);
    PERFORM chukan.revoke_agency(_schema);
    RETURN NULL;
  END IF;
  IF _state <> 'arriving' THEN
    RETURN _state;
  END IF;
  UPDATE chukan.agencies SET generation = _generation WHERE agency = _agency;
  SELECT string_agg(format('%I.%I', _schema, c.relname), ', ') INTO _tables FROM pg_class c
    WHERE c.relnamespace = _schema::regnamespace AND c.relkind = 'r';
  EXECUTE 'TRUNCATE ' || _tables;
  RETURN NULL;
END $$;

-- Opens an agency that has arrived, whole: from here on it lives here and there is no way back. False when that was done.
-- Numbers of events go on above those that came along: a sequence is the cell's own, and never goes back.
CREATE FUNCTION chukan.move_open(_agency integer, _generation integer, _hold_version bigint, _head bigint, _event bigint)
RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
  _here record;
BEGIN
  SELECT a.state, a.generation INTO _here FROM chukan.agencies a WHERE a.agency = _agency FOR UPDATE;
  IF _here.state = 'open' AND _here.generation = _generation THEN
    PERFORM chukan.fence(true);
    RETURN false;
  END IF;
  IF _here IS NULL OR _here.state <> 'arriving' OR _here.generation <> _generation THEN
    RAISE EXCEPTION USING ERRCODE = 'CK002', MESSAGE = 'stale_generation';
  END IF;
  -- A million more than needed, so that whoever draws a number in this instant cannot pass it and be set back.
  PERFORM setval('chukan.events_n', _event + 1000000) FROM chukan.events_n s WHERE s.last_value <= _event + 1000;
  INSERT INTO chukan.log_heads (agency, seq) VALUES (_agency, _head)
    ON CONFLICT (agency) DO UPDATE SET seq = excluded.seq;
  PERFORM chukan.give_work_back(chukan.schema_of(_agency));
  PERFORM chukan.grant_agency(_agency);
  UPDATE chukan.agencies SET state = 'open', hold_version = _hold_version + 1 WHERE agency = _agency;
  RETURN true;
END $$;

-- Says where an agency was frozen that it has gone, and in which generation.
CREATE FUNCTION chukan.move_leave(_agency integer, _generation integer) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
BEGIN
  UPDATE chukan.agencies SET state = 'moved', generation = _generation
    WHERE agency = _agency AND state = 'moving' AND generation < _generation;
  IF NOT FOUND THEN
    PERFORM chukan.fence(true);
    RETURN false;
  END IF;
  RETURN true;
END $$;

-- Reads refuse an agency that does not live here (any more): what is left here would answer with yesterday's state.
CREATE FUNCTION chukan.check_here(_agency integer[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM chukan.agencies a WHERE a.agency = ANY (_agency) AND a.state IN ('moving', 'arriving', 'moved')) THEN
    RAISE EXCEPTION USING ERRCODE = 'CK002', MESSAGE = 'stale_generation';
  END IF;
END $$;

-- Those that read without asking for the generation, as before but for that; and forget(), which would else take the sent
-- bytes of lines that nobody works on for the time of a move, and which a freeze now waits for.
DO $$
DECLARE
  _name text;
  _given text;
  _text text;
  _old text;
  _new text;
BEGIN
  FOR _name, _given IN VALUES
    ('inquiry_views', 'ARRAY[_agency]'), ('provision_views', 'ARRAY[_agency]'), ('batch_progress', 'ARRAY[_agency]'),
    ('read_requests', '_agency'), ('forget', NULL)
  LOOP
    SELECT pg_get_functiondef(p.oid) INTO STRICT _text FROM pg_proc p
      WHERE p.pronamespace = 'chukan'::regnamespace AND p.proname = _name;
    IF _given IS NOT NULL THEN
      _old := E'\nBEGIN\n';
      _new := format(E'\nBEGIN\n  PERFORM chukan.check_here(%s);\n', _given);
    ELSE
      _old := E'a.agency > _after ORDER BY a.agency LIMIT _count LOOP\n';
      _new := _old || '    _last := _agency;
    PERFORM 1 FROM chukan.agencies a WHERE a.agency = _agency AND a.state IN (''open'', ''closed'')
      FOR KEY SHARE SKIP LOCKED;
    CONTINUE WHEN NOT FOUND;
';
    END IF;
    IF length(_text) - length(replace(_text, _old, '')) <> length(_old) THEN
      RAISE EXCEPTION 'chukan.% is not what it was', _name;
    END IF;
    EXECUTE replace(_text, _old, _new);
  END LOOP;
END $$;

-- As before, and never of an agency that is on its way: it is closed where it lives.
CREATE OR REPLACE FUNCTION chukan.close_agency(_agency integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
BEGIN
  PERFORM 1 FROM chukan.agencies a WHERE a.agency = _agency FOR UPDATE;
  PERFORM chukan.check_here(ARRAY[_agency]);
  UPDATE chukan.agencies SET state = 'closed' WHERE agency = _agency;
  RETURN FOUND;
END $$;

CALL chukan.entrust('work_tables', 'chukan_fn', '');
CALL chukan.entrust('given_columns', 'chukan_fn', '');
CALL chukan.entrust('make_kept_work', 'chukan_fn', '');
CALL chukan.entrust('give_work_back', 'chukan_fn', '');
CALL chukan.entrust('revoke_agency', 'chukan_fn', '');
CALL chukan.entrust('move_freeze', 'chukan_fn', '');
CALL chukan.entrust('move_thaw', 'chukan_fn', '');
CALL chukan.entrust('move_receive', 'chukan_fn', '');
CALL chukan.entrust('move_open', 'chukan_fn', '');
CALL chukan.entrust('move_leave', 'chukan_fn', '');
CALL chukan.entrust('check_here', 'chukan_fn', '');
