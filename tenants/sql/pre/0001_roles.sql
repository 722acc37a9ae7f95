-- Roles, and the doors in pg_catalog that would make SET ROLE worthless.
-- Roles are shared by all databases of a server, the REVOKEs are not: every database needs its own (and open_doors()
-- is asked at every connect, so that a database without them is never served).

DO $$
DECLARE
  _role text;
  _kind text;
BEGIN
  FOR _role, _kind IN VALUES
    ('chukan_owner',   'NOLOGIN NOINHERIT CREATEROLE'),  -- owns parents and leaves; acts only inside birth()
    ('chukan_fn',      'NOLOGIN NOINHERIT'),             -- owns the set functions and the cell's work tables
    ('chukan_agency',  'NOLOGIN NOINHERIT'),             -- what every agency role may do beside its own schema
    ('chukan_broker',  'LOGIN NOINHERIT'),               -- door 2: EXECUTE on set functions, no table right at all
    ('chukan_app',     'LOGIN NOINHERIT'),               -- door 1: SET LOCAL ROLE aNNNNN, no right of its own
    ('chukan_steward', 'LOGIN NOINHERIT')                -- births, closings and snapshots; reads nothing
  LOOP
    BEGIN
      EXECUTE format('CREATE ROLE %I', _role);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;  -- another database of this server made it
    END;
    EXECUTE format('ALTER ROLE %I %s', _role, _kind);
  END LOOP;
  EXECUTE 'GRANT chukan_agency TO chukan_owner WITH ADMIN OPTION';  -- so that birth() can pass it on

  -- A generic plan over a parent takes seconds and thousands of locks; a custom one never looks at other leaves.
  FOREACH _role IN ARRAY ARRAY['chukan_broker', 'chukan_app', 'chukan_steward'] LOOP
    EXECUTE format('ALTER ROLE %I SET plan_cache_mode = force_custom_plan', _role);
    EXECUTE format('ALTER ROLE %I SET synchronous_commit = on', _role);
    EXECUTE format('ALTER ROLE %I SET jit = off', _role);
    EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = ''30s''', _role);
  END LOOP;
  -- Statement timeouts do not interrupt a commit that waits for the other centre (that would be an unsafe answer).
  EXECUTE 'ALTER ROLE chukan_broker SET statement_timeout = ''30s''';
  EXECUTE 'ALTER ROLE chukan_broker SET lock_timeout = ''10s''';
  EXECUTE 'ALTER ROLE chukan_app SET statement_timeout = ''300s''';
  EXECUTE 'ALTER ROLE chukan_app SET lock_timeout = ''10s''';

  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO chukan_broker, chukan_app, chukan_steward', current_database());
  EXECUTE format('GRANT CREATE ON DATABASE %I TO chukan_owner', current_database());
END $$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA chukan TO chukan_owner, chukan_fn, chukan_agency, chukan_broker, chukan_steward, chukan_app;

-- The functions of pg_catalog that nobody may call by default: those that change the role or run a query given as text,
-- large objects, locks and waits that stall others, and what tells the size or the activity of another agency.
CREATE FUNCTION chukan.closed_functions() RETURNS SETOF oid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname ~ (
    '^(set_config|ts_stat|ts_rewrite|(query|table|schema|database|cursor)_to_xml.*'
    '|lo_.*|loread|lowrite'
    '|pg_(try_)?advisory_.*|pg_sleep.*|pg_notify|pg_cancel_backend|pg_terminate_backend'
    '|pg_(relation|table|indexes|total_relation|database|tablespace)_size'
    '|pg_stat_get_.*|pg_lock_status|pg_prepared_statement|pg_cursor)$');
END $$;

DO $$
DECLARE
  _columns text;
BEGIN
  EXECUTE (SELECT 'REVOKE EXECUTE ON FUNCTION ' || string_agg(f.oid::regprocedure::text, ', ') || ' FROM PUBLIC'
           FROM chukan.closed_functions() f(oid));
  -- Monitoring by a role of its own keeps working.
  EXECUTE (SELECT 'GRANT EXECUTE ON FUNCTION ' || string_agg(f.oid::regprocedure::text, ', ') || ' TO pg_monitor'
           FROM chukan.closed_functions() f(oid) JOIN pg_proc p USING (oid)
             WHERE p.proname ~ '^pg_(stat_get_|lock_st|.*_size)');
  -- Row and page counts of another agency's tables: everything else in pg_class is names.
  REVOKE SELECT ON pg_catalog.pg_class FROM PUBLIC;
  SELECT string_agg(quote_ident(attname), ', ') INTO _columns FROM pg_attribute
    WHERE attrelid = 'pg_catalog.pg_class'::regclass AND NOT attisdropped
      AND attname NOT IN ('reltuples', 'relpages', 'relallvisible', 'relallfrozen');
  EXECUTE format('GRANT SELECT (%s) ON pg_catalog.pg_class TO PUBLIC', _columns);
  GRANT SELECT ON pg_catalog.pg_class TO pg_monitor;
END $$;

REVOKE UPDATE ON pg_catalog.pg_settings FROM PUBLIC;
REVOKE USAGE ON LANGUAGE plpgsql, sql FROM PUBLIC;  -- no DO, no function of one's own

-- The driver asks for array types with set_config as the login role; an agency role never has it.
GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) TO chukan_app, chukan_broker, chukan_steward;
GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) TO chukan_owner;  -- default_tablespace in birth()
GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) TO chukan_broker;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_try_advisory_xact_lock(bigint) TO chukan_fn;
-- One load at a time merges; locks of two keys are another space than the sequencer's lock of one.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_advisory_xact_lock(integer, integer) TO chukan_agency;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_try_advisory_xact_lock(integer, integer) TO chukan_agency;

-- Names every door that stands open in this database for this login; a process serves only where there is none.
CREATE FUNCTION chukan.open_doors() RETURNS SETOF text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY SELECT f.oid::regprocedure::text FROM chukan.closed_functions() f(oid)
    WHERE has_function_privilege('public', f.oid, 'EXECUTE');
  RETURN QUERY SELECT d.name FROM (VALUES
    ('update on pg_settings', has_table_privilege('public', 'pg_catalog.pg_settings', 'UPDATE')),
    ('row counts in pg_class', has_column_privilege('public', 'pg_catalog.pg_class', 'reltuples', 'SELECT')),
    ('language plpgsql', has_language_privilege('public', 'plpgsql', 'USAGE')),
    ('language sql', has_language_privilege('public', 'sql', 'USAGE')),
    ('temporary tables', has_database_privilege('public', current_database(), 'TEMP')),
    ('new schemas', has_database_privilege('public', current_database(), 'CREATE')),
    ('connections of anybody', has_database_privilege('public', current_database(), 'CONNECT')),
    ('schema public', has_schema_privilege('public', 'public', 'USAGE')
      OR has_schema_privilege('public', 'public', 'CREATE')),
    ('a privileged login', (SELECT r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication
                            OR r.rolinherit FROM pg_roles r WHERE r.rolname = session_user))
  ) d(name, open) WHERE d.open;
END $$;

-- Hands a function to its owner and to the only roles that may call it; without this PUBLIC could execute it.
CREATE PROCEDURE chukan.entrust(_function text, _owner text, VARIADIC _callers text[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _f regprocedure;
  _caller text;
BEGIN
  SELECT p.oid::regprocedure INTO STRICT _f FROM pg_proc p
    WHERE p.pronamespace = 'chukan'::regnamespace AND p.proname = _function;
  EXECUTE format('ALTER ROUTINE %s OWNER TO %I', _f, _owner);
  EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', _f);
  FOREACH _caller IN ARRAY _callers LOOP
    IF _caller <> '' THEN
      EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %I', _f, _caller);
    END IF;
  END LOOP;
END $$;
REVOKE ALL ON PROCEDURE chukan.entrust(text, text, text[]) FROM PUBLIC;

CALL chukan.entrust('closed_functions', 'chukan_fn', '');
CALL chukan.entrust('open_doors', 'chukan_fn', 'chukan_broker', 'chukan_app', 'chukan_steward');
