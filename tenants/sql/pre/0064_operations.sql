-- The operations log (操作記録): acts of an agency's officers in the agency's own schema, sealed by the exchange; acts of the
-- cell's operators in chukan_operators, in the clear. Both are Merkle logs in the forms of 0018 and 0053.
--
-- Where functions take an agency's number, 100000 stands for the operators. Entries and leaves are never changed or deleted
-- by anything here; `tries` alone is counted up, so that a repeat is as durable as the first time.

CREATE TABLE chukan_plain.operations (
  id         uuid PRIMARY KEY,
  label      bytea NOT NULL CHECK (octet_length(label) = 32),
  body       bytea NOT NULL,
  commitment bytea NOT NULL CHECK (octet_length(commitment) = 32),
  tries      integer NOT NULL DEFAULT 1,
  at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX operations_by_at ON chukan_plain.operations USING brin (at) WITH (autosummarize = on);
CREATE TABLE chukan_plain.operation_log (
  seq       bigint PRIMARY KEY CHECK (seq > 0),
  operation uuid NOT NULL,
  label     bytea NOT NULL CHECK (octet_length(label) = 32),
  leaf_data bytea NOT NULL CHECK (octet_length(leaf_data) = 105),
  leaf_hash bytea NOT NULL CHECK (octet_length(leaf_hash) = 32),
  at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX operation_log_by_label ON chukan_plain.operation_log (label, seq);
CREATE INDEX operation_log_by_entry ON chukan_plain.operation_log (operation);
CREATE TABLE chukan_plain.operation_tiles (LIKE chukan_plain.tiles INCLUDING ALL);
CREATE TABLE chukan_plain.operation_checkpoints (LIKE chukan_plain.checkpoints INCLUDING ALL);
CREATE TABLE chukan_plain.operation_cosignatures (LIKE chukan_plain.cosignatures INCLUDING ALL);
ALTER TABLE chukan_plain.operations ALTER body SET STORAGE EXTERNAL;

-- The operators' have the same shapes, in a schema that no agency's role has any right in.
CREATE SCHEMA chukan_operators AUTHORIZATION chukan_owner;
GRANT USAGE ON SCHEMA chukan_operators TO chukan_fn;

DO $$
DECLARE
  _table name;
  _rights text;
BEGIN
  FOR _table, _rights IN VALUES
    ('operations', 'SELECT, INSERT'), ('operation_log', 'SELECT, INSERT'), ('operation_tiles', 'SELECT, INSERT'),
    ('operation_checkpoints', 'SELECT, INSERT'), ('operation_cosignatures', 'SELECT, INSERT, UPDATE')
  LOOP
    EXECUTE format('ALTER TABLE chukan_plain.%I OWNER TO chukan_owner', _table);
    EXECUTE format('CREATE TABLE chukan_operators.%1$I (LIKE chukan_plain.%1$I INCLUDING ALL)', _table);
    EXECUTE format('ALTER TABLE chukan_operators.%I OWNER TO chukan_owner', _table);
    EXECUTE format('GRANT %s ON chukan_operators.%I TO chukan_fn', _rights, _table);
  END LOOP;
END $$;
GRANT UPDATE (tries) ON chukan_operators.operations TO chukan_fn;

SELECT chukan.add_plain_table('operations', 'SELECT', 'SELECT, INSERT, UPDATE');
SELECT chukan.add_plain_table('operation_log', 'SELECT', 'SELECT, INSERT');
SELECT chukan.add_plain_table('operation_tiles', 'SELECT', 'SELECT, INSERT');
SELECT chukan.add_plain_table('operation_checkpoints', 'SELECT', 'SELECT, INSERT');
SELECT chukan.add_plain_table('operation_cosignatures', 'SELECT', 'SELECT, INSERT, UPDATE');

-- Entries that have no place in their log yet. One whose entry is gone stays here for ever, marked: its log goes on without
-- it, and the age of what waits says that something is wrong.
CREATE TABLE chukan.operations_waiting (
  n      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  agency integer NOT NULL,
  id     uuid NOT NULL,
  lost   boolean NOT NULL DEFAULT false,
  at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX operations_waiting_lost ON chukan.operations_waiting (n) WHERE lost;

-- How long each log is and up to where it is signed: a hint, made anew from the log where the agency came from elsewhere.
CREATE TABLE chukan.operation_heads (
  agency     integer PRIMARY KEY,
  generation integer NOT NULL,
  seq        bigint NOT NULL,
  size       bigint NOT NULL DEFAULT 0,
  at         timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
ALTER TABLE chukan.operations_waiting OWNER TO chukan_fn;
ALTER TABLE chukan.operation_heads OWNER TO chukan_fn;

-- As before, and what waits for its place here.
CREATE OR REPLACE FUNCTION chukan.work_tables() RETURNS text[]
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN ARRAY['inquiry_work', 'provision_work', 'to_sequence', 'operations_waiting'];
END $$;

-- As before; an agency that was frozen before there was a table of work has nothing of it to give back.
CREATE OR REPLACE FUNCTION chukan.give_work_back(_schema text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _table text;
  _columns text;
BEGIN
  FOREACH _table IN ARRAY chukan.work_tables() LOOP
    CONTINUE WHEN to_regclass(format('%I.%I', _schema, 'kept_' || _table)) IS NULL;
    _columns := chukan.given_columns(format('chukan.%I', _table)::regclass, 'n');
    EXECUTE format('INSERT INTO chukan.%I (%s) SELECT %s FROM %I.%I ORDER BY %s', _table, _columns, _columns, _schema,
                   'kept_' || _table, CASE WHEN _table IN ('to_sequence', 'operations_waiting') THEN 'n' ELSE 'agency, id' END);
    EXECUTE format('DROP TABLE %I.%I', _schema, 'kept_' || _table);
  END LOOP;
END $$;

-- The schema in which a log lies.
CREATE FUNCTION chukan.operations_schema(_agency integer) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN CASE WHEN _agency = 100000 THEN 'chukan_operators' ELSE chukan.schema_of(_agency) END;
END $$;

-- Enters acts, at most 200; returns how many are there now of those given. An entry that is there already stays as it is.
-- Other functions call it in the transaction of the act itself.
CREATE FUNCTION chukan.operations_append(
  _agency integer[], _id uuid[], _label bytea[], _body bytea[], _commitment bytea[]
) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _one integer;
  _new uuid[];
  _count integer := 0;
BEGIN
  IF cardinality(_id) > 200 THEN
    PERFORM chukan.defect('more operations than a set');
  END IF;
  PERFORM chukan.check_generation(array_remove(_agency, 100000), NULL);
  FOR _one IN SELECT DISTINCT u.agency FROM unnest(_agency) u(agency) ORDER BY u.agency LOOP
    EXECUTE format(
      'WITH kept AS (INSERT INTO %I.operations AS o (id, label, body, commitment)
         SELECT u.id, u.label, u.body, u.commitment FROM unnest($1, $2, $3, $4, $5) u(agency, id, label, body, commitment)
         WHERE u.agency = %s ORDER BY u.id
         ON CONFLICT (id) DO UPDATE SET tries = o.tries + 1 RETURNING o.id, o.tries)
       SELECT coalesce(array_agg(k.id ORDER BY k.id) FILTER (WHERE k.tries = 1), ''{}''), $6 + count(*) FROM kept k',
      chukan.operations_schema(_one), _one)
      INTO _new, _count USING _agency, _id, _label, _body, _commitment, _count;
    INSERT INTO chukan.operations_waiting (agency, id)
      SELECT _one, u.id FROM unnest(_id) WITH ORDINALITY u(id, n) WHERE u.id = ANY (_new) ORDER BY u.n;
  END LOOP;
  RETURN _count;
END $$;

-- Enters one act of an agency's officers in the transaction of the agency's own role; the role is read from its SET ROLE.
CREATE FUNCTION chukan.operate(_agency integer, _id uuid, _label bytea, _body bytea, _commitment bytea) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF current_setting('role') <> chukan.operations_schema(_agency) THEN
    RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = 'not this agency';
  END IF;
  RETURN chukan.operations_append(ARRAY[_agency], ARRAY[_id], ARRAY[_label], ARRAY[_body], ARRAY[_commitment]);
END $$;

-- The leaves of one log's waiting entries, in the form of 0018: each actor's entries are a chain.
CREATE FUNCTION chukan.operation_leaves(_schema text, _id uuid[])
RETURNS TABLE (place bigint, operation uuid, label bytea, leaf bytea)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _row record;
  _label bytea;
  _ordinal bigint;
  _previous bytea;
BEGIN
  FOR _row IN EXECUTE format(
    'SELECT t.id, row_number() OVER (ORDER BY t.place) AS place, o.commitment, o.label, p.leaf_data, p.leaf_hash
     FROM unnest($1) WITH ORDINALITY t(id, place) JOIN %1$I.operations o ON o.id = t.id
     LEFT JOIN LATERAL (SELECT l.leaf_data, l.leaf_hash FROM %1$I.operation_log l WHERE l.label = o.label
                        ORDER BY l.seq DESC LIMIT 1) p ON true
     ORDER BY o.label, t.place', _schema) USING _id
  LOOP
    IF _label IS DISTINCT FROM _row.label THEN
      _label := _row.label;
      _previous := coalesce(_row.leaf_hash, decode(repeat('00', 32), 'hex'));
      _ordinal := coalesce(('x' || encode(substr(_row.leaf_data, 66, 8), 'hex'))::bit(64)::bigint + 1, 0);
    END IF;
    place := _row.place;
    operation := _row.id;
    label := _label;
    leaf := '\x01'::bytea || _row.commitment || _label || int8send(_ordinal) || _previous;
    RETURN NEXT;
    _previous := sha256('\x00'::bytea || leaf);
    _ordinal := _ordinal + 1;
  END LOOP;
END $$;

-- Makes the hints of a few logs that have none, or one of an earlier home; called by the sequencer, which is alone.
CREATE FUNCTION chukan.operation_hints(_limit integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _one record;
  _seq bigint;
  _size bigint;
BEGIN
  FOR _one IN
    SELECT a.agency, a.generation FROM (
      SELECT a.agency, a.generation FROM chukan.agencies a WHERE a.state = 'open' UNION ALL SELECT 100000, 1) a
    LEFT JOIN chukan.operation_heads h ON h.agency = a.agency AND h.generation = a.generation
    WHERE h.agency IS NULL ORDER BY a.agency LIMIT _limit
  LOOP
    EXECUTE format('SELECT coalesce((SELECT max(l.seq) FROM %1$I.operation_log l), 0),
                           coalesce((SELECT max(c.size) FROM %1$I.operation_checkpoints c), 0)',
                   chukan.operations_schema(_one.agency)) INTO _seq, _size;
    INSERT INTO chukan.operation_heads AS h (agency, generation, seq, size) VALUES (_one.agency, _one.generation, _seq, _size)
      ON CONFLICT (agency) DO UPDATE SET generation = excluded.generation, seq = excluded.seq, size = excluded.size;
  END LOOP;
END $$;

-- Takes up to _limit waiting entries; returns how many, or -1 when another one holds the lock. An agency that is being
-- moved or closed at this instant is left for the next time.
CREATE FUNCTION chukan.operations_sequence(_limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _here integer[];
  _log record;
  _schema text;
  _head bigint;
  _placed uuid[];
  _done integer := 0;
BEGIN
  IF NOT pg_try_advisory_xact_lock(4851205431605) THEN
    RETURN -1;
  END IF;
  PERFORM chukan.operation_hints(50);
  _here := ARRAY(SELECT a.agency FROM chukan.agencies a WHERE a.state = 'open'
    AND a.agency IN (SELECT w.agency FROM chukan.operations_waiting w WHERE NOT w.lost ORDER BY w.n LIMIT _limit)
    ORDER BY a.agency FOR KEY SHARE SKIP LOCKED) || 100000;
  FOR _log IN
    SELECT t.agency, array_agg(t.id ORDER BY t.n) AS ids FROM (
      SELECT w.agency, w.id, w.n FROM chukan.operations_waiting w
      WHERE NOT w.lost AND w.agency = ANY (_here) ORDER BY w.n LIMIT _limit) t GROUP BY t.agency ORDER BY t.agency
  LOOP
    _schema := chukan.operations_schema(_log.agency);
    EXECUTE format('SELECT coalesce(max(l.seq), 0) FROM %I.operation_log l', _schema) INTO _head;
    EXECUTE format(
      'WITH kept AS (INSERT INTO %I.operation_log (seq, operation, label, leaf_data, leaf_hash)
         SELECT $1 + l.place, l.operation, l.label, l.leaf, sha256(''\x00''::bytea || l.leaf)
         FROM chukan.operation_leaves($2, $3) l ORDER BY l.place RETURNING operation)
       SELECT array_agg(k.operation) FROM kept k', _schema) INTO _placed USING _head, _schema, _log.ids;
    DELETE FROM chukan.operations_waiting w WHERE w.agency = _log.agency AND w.id = ANY (_placed);
    UPDATE chukan.operations_waiting w SET lost = true WHERE w.agency = _log.agency AND w.id = ANY (_log.ids);
    UPDATE chukan.operation_heads h SET seq = _head + coalesce(cardinality(_placed), 0) WHERE h.agency = _log.agency;
    _done := _done + cardinality(_log.ids);
  END LOOP;
  RETURN _done;
END $$;

-- How many seconds the longest waiting entry of an open log, lost ones among them, has been without its place or a signed
-- checkpoint, 0 when none waits; and how many entries are lost.
CREATE FUNCTION chukan.operations_age() RETURNS TABLE (seconds double precision, lost bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _agency integer;
  _size bigint;
  _age double precision;
BEGIN
  seconds := coalesce((SELECT extract(epoch FROM clock_timestamp() - w.at) FROM chukan.operations_waiting w
    LEFT JOIN chukan.agencies a ON a.agency = w.agency
    WHERE a.state = 'open' OR w.agency = 100000 ORDER BY w.n LIMIT 1), 0);
  FOR _agency, _size IN
    SELECT h.agency, h.size FROM chukan.operation_heads h LEFT JOIN chukan.agencies a ON a.agency = h.agency
    WHERE h.seq > h.size AND (a.state = 'open' OR h.agency = 100000) ORDER BY h.at LIMIT 100
  LOOP
    EXECUTE format('SELECT extract(epoch FROM clock_timestamp() - l.at) FROM %I.operation_log l WHERE l.seq = $1',
                   chukan.operations_schema(_agency)) INTO _age USING _size + 1;
    seconds := greatest(seconds, coalesce(_age, 0));
  END LOOP;
  lost := (SELECT count(*) FROM chukan.operations_waiting w WHERE w.lost);
  RETURN NEXT;
END $$;

CALL chukan.entrust('operations_schema', 'chukan_fn', '');
CALL chukan.entrust('operations_append', 'chukan_fn', 'chukan_broker', 'chukan_steward');
CALL chukan.entrust('operate', 'chukan_fn', 'chukan_agency');
CALL chukan.entrust('operation_leaves', 'chukan_fn', '');
CALL chukan.entrust('operation_hints', 'chukan_fn', '');
CALL chukan.entrust('operations_sequence', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('operations_age', 'chukan_fn', 'chukan_broker');
