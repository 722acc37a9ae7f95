-- An agency's own schema: leaves of the parents, plain tables made from the templates below, its role and its rights.

-- Templates: tables that are reached by the agency's schema only. Nobody has a right on a template.
CREATE SCHEMA chukan_plain AUTHORIZATION chukan_owner;

-- Copies (副本). The body is sealed under the row's id, which an update of the same key keeps.
CREATE TABLE chukan_plain.copies (
  id             uuid NOT NULL,
  person         bytea NOT NULL CHECK (octet_length(person) = 32),
  kind           text NOT NULL,
  period         text NOT NULL DEFAULT '',
  effective_from date NOT NULL,
  layout         integer NOT NULL,
  body           bytea NOT NULL,
  content        bytea NOT NULL CHECK (octet_length(content) = 32),
  review         boolean NOT NULL DEFAULT false,
  registered_at  timestamptz NOT NULL DEFAULT now(),
  source         text NOT NULL DEFAULT '',
  load           uuid,
  PRIMARY KEY (person, kind, period, effective_from, layout)
);
CREATE INDEX copies_by_kind ON chukan_plain.copies (kind, id);
COMMENT ON COLUMN chukan_plain.copies.content IS 'keyed digest of the clear content: an unchanged row is skipped';
COMMENT ON COLUMN chukan_plain.copies.period IS 'year or period of the content, empty where the kind has none';

CREATE TABLE chukan_plain.loads (
  id           uuid PRIMARY KEY,
  kind         text NOT NULL,
  period       text NOT NULL DEFAULT '',
  layout       integer NOT NULL,
  mode         text NOT NULL CHECK (mode IN ('full', 'difference')),
  expected     bigint NOT NULL CHECK (expected >= 0),
  state        text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'held', 'committed', 'aborted')),
  source       text NOT NULL DEFAULT '',
  on_error     text NOT NULL DEFAULT 'reject_file' CHECK (on_error IN ('reject_line', 'reject_file')),
  inserted     bigint,
  updated      bigint,
  unchanged    bigint,
  deleted      bigint,
  opened_at    timestamptz NOT NULL DEFAULT now(),
  committed_at timestamptz
);

CREATE TABLE chukan_plain.load_parts (
  load     uuid NOT NULL,
  n        integer NOT NULL CHECK (n >= 0),
  digest   bytea NOT NULL,
  rows     bigint NOT NULL,
  refused  bigint NOT NULL DEFAULT 0,
  refusals text NOT NULL DEFAULT '[]',  -- JSON: line numbers and error codes of refused lines, never a value
  at       timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (load, n)
);

-- Rows of open loads, written by COPY. Logged: an acknowledged part must survive the loss of a centre.
CREATE TABLE chukan_plain.stage (
  load           uuid NOT NULL,
  n              integer NOT NULL,
  line           integer NOT NULL,
  id             uuid NOT NULL,
  person         bytea NOT NULL,
  kind           text NOT NULL,
  period         text NOT NULL DEFAULT '',
  effective_from date NOT NULL,
  layout         integer NOT NULL,
  body           bytea NOT NULL,
  content        bytea NOT NULL,
  review         boolean NOT NULL DEFAULT false
);
-- The stage has no statistics when a load is committed (an agency cannot ANALYZE); with its key indexed even the plan
-- that the planner then takes, a nested loop, is a probe for each row and not a scan of the whole load.
CREATE INDEX stage_by_key ON chukan_plain.stage (load, person, effective_from);

-- The link between an addressee number and a linkage code (符号), in both directions.
CREATE TABLE chukan_plain.codes (
  person        bytea PRIMARY KEY CHECK (octet_length(person) = 32),
  status        smallint NOT NULL,
  version       bigint NOT NULL DEFAULT 1,
  addressee     bytea NOT NULL,
  request       uuid,
  number_digest bytea UNIQUE,
  number        bytea,
  code_digest   bytea UNIQUE,
  code          bytea,
  tries         integer NOT NULL DEFAULT 1,
  at            timestamptz NOT NULL DEFAULT now(),
  CHECK ((number IS NULL) = (number_digest IS NULL)),
  CHECK ((code IS NULL) = (code_digest IS NULL)),
  CHECK (status <> 2 OR code IS NOT NULL)
);

-- Holds (自動応答不可): on a person, on a kind, on both, or (both empty) on everything.
CREATE TABLE chukan_plain.holds (
  person bytea CHECK (octet_length(person) = 32),
  kind   text,
  at     timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX holds_key ON chukan_plain.holds (person, kind) NULLS NOT DISTINCT;
CREATE INDEX holds_kind ON chukan_plain.holds (kind) WHERE person IS NULL;

-- What a first officer prepared about a held provision.
CREATE TABLE chukan_plain.review_drafts (
  provision uuid PRIMARY KEY,
  decision  text NOT NULL,
  withheld  boolean NOT NULL DEFAULT false,
  officer   text NOT NULL,
  note      bytea,
  at        timestamptz NOT NULL DEFAULT now()
);

-- When copies of a kind last changed; kept by triggers, read for the metric of copy age.
CREATE TABLE chukan_plain.copy_marks (
  kind text PRIMARY KEY,
  at   timestamptz NOT NULL
) WITH (fillfactor = 50);

DO $$
DECLARE
  _table name;
  _column name;
BEGIN
  FOR _table IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'chukan_plain'::regnamespace
                AND c.relkind = 'r' LOOP
    EXECUTE format('ALTER TABLE chukan_plain.%I OWNER TO chukan_owner', _table);
    FOR _column IN SELECT a.attname FROM pg_attribute a WHERE a.attrelid = format('chukan_plain.%I', _table)::regclass
                   AND a.attname IN ('body', 'addressee', 'number', 'code', 'note') LOOP
      EXECUTE format('ALTER TABLE chukan_plain.%I ALTER %I SET STORAGE EXTERNAL', _table, _column);
    END LOOP;
  END LOOP;
END $$;

-- The name of an agency's schema and role.
CREATE FUNCTION chukan.schema_of(_agency integer) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF _agency IS NULL OR _agency NOT BETWEEN 1 AND 99999 THEN
    RAISE EXCEPTION USING ERRCODE = 'CK003', MESSAGE = 'no agency number';
  END IF;
  RETURN 'a' || lpad(_agency::text, 5, '0');
END $$;

-- Runs as the role that changed the copies. SKIP LOCKED: of two loads at the same time one mark is enough, none waits.
CREATE FUNCTION chukan.mark_copies() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format(
    'INSERT INTO %1$I.copy_marks (kind, at) SELECT DISTINCT c.kind, now() FROM changed c
       WHERE NOT EXISTS (SELECT FROM %1$I.copy_marks m WHERE m.kind = c.kind) ORDER BY c.kind ON CONFLICT DO NOTHING',
    TG_TABLE_SCHEMA);
  EXECUTE format(
    'UPDATE %1$I.copy_marks m SET at = now() FROM (SELECT o.kind FROM %1$I.copy_marks o
       WHERE o.at < now() AND o.kind IN (SELECT c.kind FROM changed c) FOR UPDATE SKIP LOCKED) f WHERE m.kind = f.kind',
    TG_TABLE_SCHEMA);
  RETURN NULL;
END $$;

-- What the agency's role may do. Every write that moves a flow is a set function's, so it has no right to one here.
CREATE FUNCTION chukan.grant_agency(_agency integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _schema text := chukan.schema_of(_agency);
  _right record;
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA %1$I TO %1$I, chukan_fn', _schema);
  FOR _right IN SELECT * FROM (VALUES
    ('SELECT', ARRAY['queries', 'permits', 'answers', 'provisions', 'records', 'events', 'log', 'codes'],
      ARRAY[_schema]),
    ('SELECT, INSERT, UPDATE', ARRAY['idempotency', 'copy_marks'], ARRAY[_schema]),
    ('SELECT, INSERT, UPDATE, DELETE', ARRAY['copies', 'loads', 'load_parts', 'stage', 'holds', 'review_drafts'],
      ARRAY[_schema]),
    ('SELECT', ARRAY['queries', 'provisions', 'records', 'log', 'copies', 'holds', 'loads', 'copy_marks'],
      ARRAY['chukan_fn']),
    ('SELECT, DELETE', ARRAY['answers', 'outbox', 'inbox', 'idempotency', 'permits_used'], ARRAY['chukan_fn']),
    ('SELECT, INSERT, UPDATE', ARRAY['codes'], ARRAY['chukan_fn'])
  ) g(rights, tables, roles) LOOP
    EXECUTE format('GRANT %s ON %s TO %s', _right.rights,
      (SELECT string_agg(format('%I.%I', _schema, t.name), ', ') FROM unnest(_right.tables) t(name)),
      (SELECT string_agg(format('%I', r.name), ', ') FROM unnest(_right.roles) r(name)));
  END LOOP;
END $$;

CREATE FUNCTION chukan.secure_table(_agency integer, _table text, _rule text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _schema text := chukan.schema_of(_agency);
BEGIN
  EXECUTE format('ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY', _schema, _table);
  EXECUTE format('ALTER TABLE %I.%I FORCE ROW LEVEL SECURITY', _schema, _table);
  EXECUTE format('CREATE POLICY own ON %I.%I TO %I USING (%s) WITH CHECK (%s)', _schema, _table, _schema, _rule, _rule);
  EXECUTE format('CREATE POLICY fn ON %I.%I TO chukan_fn USING (true) WITH CHECK (true)', _schema, _table);
END $$;

CREATE FUNCTION chukan.create_agency_role(_agency integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _schema text := chukan.schema_of(_agency);
BEGIN
  BEGIN
    EXECUTE format('CREATE ROLE %I NOLOGIN INHERIT', _schema);
  EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- another database of this server made it
  END;
  IF current_setting('server_version_num')::integer >= 160000 THEN
    EXECUTE format('GRANT %I TO chukan_app WITH INHERIT FALSE, SET TRUE', _schema);
    EXECUTE format('GRANT chukan_agency TO %I WITH INHERIT TRUE, SET FALSE', _schema);
  ELSE
    EXECUTE format('GRANT %I TO chukan_app', _schema);  -- chukan_app is NOINHERIT
    EXECUTE format('GRANT chukan_agency TO %I', _schema);
  END IF;
END $$;

-- Gives an agency its role, schema and tables, in one transaction; false when it has them already.
-- CREATE … PARTITION OF would lock the parents for everyone; ATTACH of a table made before takes a lock that inserts do
-- not feel. The table is empty, so ATTACH has nothing to check. With lock_timeout a birth gives way and is tried again.
CREATE FUNCTION chukan.birth(_agency integer, _generation integer, _tablespace name) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
  _schema text := chukan.schema_of(_agency);
  _table name;
BEGIN
  IF EXISTS (SELECT FROM pg_namespace WHERE nspname = _schema) THEN
    RETURN false;
  END IF;
  PERFORM set_config('default_tablespace', coalesce(_tablespace, ''), true);
  PERFORM chukan.create_agency_role(_agency);
  EXECUTE format('CREATE SCHEMA %I', _schema);
  FOR _table IN SELECT c.relname FROM pg_class c
                WHERE c.relnamespace = 'chukan_plain'::regnamespace AND c.relkind = 'r' ORDER BY c.relname LOOP
    EXECUTE format('CREATE TABLE %I.%I (LIKE chukan_plain.%I INCLUDING ALL)', _schema, _table, _table);
    -- COPY is refused on a table with row security: the stage is held by its schema and its rights alone.
    IF _table <> 'stage' THEN
      PERFORM chukan.secure_table(_agency, _table, 'true');
    END IF;
  END LOOP;
  EXECUTE format('CREATE TRIGGER mark_inserts AFTER INSERT ON %I.copies REFERENCING NEW TABLE AS changed '
                 'FOR EACH STATEMENT EXECUTE FUNCTION chukan.mark_copies()', _schema);
  EXECUTE format('CREATE TRIGGER mark_updates AFTER UPDATE ON %I.copies REFERENCING NEW TABLE AS changed '
                 'FOR EACH STATEMENT EXECUTE FUNCTION chukan.mark_copies()', _schema);
  FOR _table IN SELECT c.relname FROM pg_class c
                WHERE c.relnamespace = 'chukan'::regnamespace AND c.relkind = 'p' ORDER BY c.relname LOOP
    EXECUTE format('CREATE TABLE %I.%I (LIKE chukan.%I INCLUDING ALL)', _schema, _table, _table);
    PERFORM chukan.secure_table(_agency, _table, format('agency = %s', _agency));
    EXECUTE format('ALTER TABLE chukan.%I ATTACH PARTITION %I.%I FOR VALUES IN (%s)', _table, _schema, _table, _agency);
  END LOOP;
  PERFORM chukan.grant_agency(_agency);
  PERFORM chukan.register_agency(_agency, _generation);
  RETURN true;
END $$;

-- The rows of chukan.agencies are chukan_fn's; birth() acts as chukan_owner.
CREATE FUNCTION chukan.register_agency(_agency integer, _generation integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO chukan.agencies (agency, generation) VALUES (_agency, _generation);
  INSERT INTO chukan.log_heads (agency, seq) VALUES (_agency, 0) ON CONFLICT DO NOTHING;
END $$;

-- Closes an agency: every set that names it is refused from then on. Waits for the sets in flight.
CREATE FUNCTION chukan.close_agency(_agency integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
BEGIN
  PERFORM 1 FROM chukan.agencies a WHERE a.agency = _agency FOR UPDATE;
  UPDATE chukan.agencies SET state = 'closed' WHERE agency = _agency;
  RETURN FOUND;
END $$;

CREATE FUNCTION chukan.list_agencies() RETURNS TABLE (agency integer, generation integer, state text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT a.agency, a.generation, a.state FROM chukan.agencies a ORDER BY a.agency;
END $$;

-- Called by an agency's role in the transaction that changes its holds: provisions decided before are decided again.
-- The caller's role is read from its SET ROLE, for current_user is this function's owner.
CREATE FUNCTION chukan.bump_holds(_agency integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF current_setting('role') <> chukan.schema_of(_agency) THEN
    RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = 'not this agency';
  END IF;
  UPDATE chukan.agencies SET hold_version = hold_version + 1 WHERE agency = _agency;
END $$;

CALL chukan.entrust('schema_of', 'chukan_fn', 'chukan_owner');
CALL chukan.entrust('mark_copies', 'chukan_owner', '');
CALL chukan.entrust('grant_agency', 'chukan_owner', '');
CALL chukan.entrust('secure_table', 'chukan_owner', '');
CALL chukan.entrust('create_agency_role', 'chukan_owner', '');
CALL chukan.entrust('birth', 'chukan_owner', 'chukan_steward');
CALL chukan.entrust('register_agency', 'chukan_fn', 'chukan_owner');
CALL chukan.entrust('close_agency', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('list_agencies', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('bump_holds', 'chukan_fn', 'chukan_agency');
