-- Re-encryption of an agency's rows to its newest data key (鍵の更新後の再暗号化), while everybody works, and the floor
-- under which no row may be sealed any more: after it an old key version can be destroyed.
--
-- What is sealed keeps its clear content and its length: only key version, nonce and ciphertext change. Nothing that is
-- evidence changes: a commitment is made of the clear record, a log's leaf of the commitment. Rows are found by walking
-- a table's blocks, so that no index is needed and an interrupted walk goes on where it was. The walk is the steward's;
-- the rights for it are lent to chukan_fn for the time of the walk, for this agency alone.

-- Where values are sealed: table, column, the column that names the row in the seal, the word and suffix of the seal.
-- A later migration that adds a sealed column adds its row here.
CREATE TABLE chukan.sealed_places (
  relation text NOT NULL,
  sealed   text NOT NULL,
  named_by text NOT NULL,
  word     text NOT NULL,
  suffix   text NOT NULL DEFAULT '',
  PRIMARY KEY (relation, sealed)
);
ALTER TABLE chukan.sealed_places OWNER TO chukan_fn;
INSERT INTO chukan.sealed_places (relation, sealed, named_by, word, suffix) VALUES
  ('queries', 'request', 'id', 'request', ''),
  ('permits', 'sealed', 'id', 'permit', ''),
  ('answers', 'sealed', 'id', 'answer', ''),
  ('provisions', 'notice', 'id', 'notice', ''),
  ('records', 'sealed', 'id', 'record', ''),
  ('outbox', 'sealed', 'id', 'outbox', ''),
  ('copies', 'body', 'id', 'copy', ''),
  ('stage', 'body', 'id', 'copy', ''),
  ('files', 'body', 'id', 'file', ''),
  ('review_drafts', 'note', 'provision', 'notice', 'note'),
  ('codes', 'addressee', 'person', 'addressee', ''),
  ('codes', 'number', 'person', 'number', ''),
  ('codes', 'code', 'code_digest', 'code', ''),
  ('code_changes', 'detail', 'id', 'notice', 'code change'),
  ('code_changes', 'target_addressee', 'target', 'addressee', ''),
  ('acquisition_asks', 'sealed', 'id', 'notice', 'acquisition ask'),
  ('officers', 'body', 'officer', 'officer', ''),
  ('officer_changes', 'body', 'id', 'officer_change', ''),
  ('officer_sessions', 'body', 'digest', 'officer_session', ''),
  ('operations', 'body', 'id', 'operation', ''),
  ('delegations', 'body', 'id', 'delegation', ''),
  ('corrections', 'sealed', 'id', 'correction', '');

-- How far the walk through an agency's tables is. One row an agency: the last walk's.
CREATE TABLE chukan.reencryptions (
  agency   integer PRIMARY KEY,
  version  integer NOT NULL CHECK (version > 0),
  place    text NOT NULL DEFAULT '',
  block    bigint NOT NULL DEFAULT 0,
  blocks   bigint NOT NULL DEFAULT 0,
  sealed   bigint NOT NULL DEFAULT 0,
  lent     text[] NOT NULL DEFAULT '{}',
  begun_at timestamptz NOT NULL DEFAULT now(),
  at       timestamptz NOT NULL DEFAULT now(),
  ended_at timestamptz
);
ALTER TABLE chukan.reencryptions OWNER TO chukan_fn;
COMMENT ON COLUMN chukan.reencryptions.lent IS 'tables that chukan_fn may read for the time of the walk alone';
COMMENT ON COLUMN chukan.reencryptions.sealed IS 'rows that were sealed anew since begun_at';

-- As before, but the re-encryption of a copy is no change of it: the age of copies stays what it is.
CREATE OR REPLACE FUNCTION chukan.mark_copies() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF current_user = 'chukan_fn' THEN
    RETURN NULL;
  END IF;
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

CREATE FUNCTION chukan.list_sealed_places()
RETURNS TABLE (relation text, sealed text, named_by text, word text, suffix text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT p.relation, p.sealed, p.named_by, p.word, p.suffix FROM chukan.sealed_places p
    ORDER BY p.relation, p.sealed;
END $$;

-- How a value looks whose key version is older than the one given; the first byte is the format of all sealed values.
CREATE FUNCTION chukan.older_than(_value text, _version integer) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN format('octet_length(%1$s) >= 33 AND substr(%1$s, 1, 1) = ''\x01'' AND substr(%1$s, 2, 4) < ''\x%2$s''::bytea',
                _value, lpad(to_hex(_version), 8, '0'));
END $$;

-- Refuses a walk while the agency is on its way to another cell; a move that begins waits for the statement in flight.
CREATE FUNCTION chukan.reencryption_of(_agency integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _version integer;
BEGIN
  PERFORM FROM chukan.agencies a WHERE a.agency = _agency AND a.state IN ('open', 'closed') FOR KEY SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'CK002', MESSAGE = 'stale_generation';
  END IF;
  SELECT r.version INTO _version FROM chukan.reencryptions r WHERE r.agency = _agency AND r.ended_at IS NULL;
  IF NOT FOUND THEN
    PERFORM chukan.defect('no re-encryption was begun');
  END IF;
  RETURN _version;
END $$;

-- Notes that a walk begins and tells where an interrupted one to the same version was.
CREATE FUNCTION chukan.reencryption_note(
  _agency integer, _version integer, _lent text[], OUT place text, OUT block bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  INSERT INTO chukan.reencryptions AS r (agency, version, lent) VALUES (_agency, _version, _lent)
    ON CONFLICT (agency) DO UPDATE SET version = _version, at = now(), ended_at = NULL, lent = r.lent || _lent,
      place = CASE WHEN r.version = _version AND r.ended_at IS NULL THEN r.place ELSE '' END,
      block = CASE WHEN r.version = _version AND r.ended_at IS NULL THEN r.block ELSE 0 END,
      sealed = CASE WHEN r.version = _version AND r.ended_at IS NULL THEN r.sealed ELSE 0 END,
      begun_at = CASE WHEN r.version = _version AND r.ended_at IS NULL THEN r.begun_at ELSE now() END
    RETURNING r.place, r.block INTO place, block;
  PERFORM chukan.reencryption_of(_agency);
END $$;

-- Begins, or goes on with, a walk: lends chukan_fn the rights that it takes.
CREATE FUNCTION chukan.reencrypt_begin(_agency integer, _version integer, OUT place text, OUT block bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
  _schema text := chukan.schema_of(_agency);
  _place record;
BEGIN
  SELECT n.place, n.block INTO place, block FROM chukan.reencryption_note(_agency, _version, ARRAY(
    SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = to_regnamespace(_schema) AND c.relkind = 'r'
      AND NOT has_table_privilege('chukan_fn', c.oid, 'SELECT'))) n;
  EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO chukan_fn', _schema);
  FOR _place IN SELECT * FROM chukan.list_sealed_places() p
                WHERE to_regclass(format('%I.%I', _schema, p.relation)) IS NOT NULL LOOP
    EXECUTE format('GRANT UPDATE (%I) ON %I.%I TO chukan_fn', _place.sealed, _schema, _place.relation);
  END LOOP;
END $$;

-- How many blocks a table has: a walk ends at those that there were when it came to the table.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_relation_size(regclass, text) TO chukan_fn;
CREATE FUNCTION chukan.reencrypt_blocks(_agency integer, _relation text) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN coalesce(pg_relation_size(to_regclass(format('%I.%I', chukan.schema_of(_agency), _relation)), 'main')
                  / current_setting('block_size')::bigint, 0);
END $$;

-- The rows of _count blocks from _from on that an older version sealed, at most _limit: where each is, what names it in
-- its seal, and the sealed value.
CREATE FUNCTION chukan.reencrypt_read(
  _agency integer, _relation text, _sealed text, _from bigint, _count integer, _limit integer)
RETURNS TABLE (place text, named bytea, sealed bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
#variable_conflict use_column
DECLARE
  _version integer := chukan.reencryption_of(_agency);
  _named text;
BEGIN
  SELECT CASE a.atttypid WHEN 'uuid'::regtype THEN format('uuid_send(%I)', p.named_by)
                         WHEN 'text'::regtype THEN format('convert_to(%I, ''UTF8'')', p.named_by)
                         ELSE quote_ident(p.named_by) END INTO STRICT _named
    FROM chukan.sealed_places p JOIN pg_attribute a ON a.attname = p.named_by
      AND a.attrelid = to_regclass(format('%I.%I', chukan.schema_of(_agency), _relation))
    WHERE p.relation = _relation AND p.sealed = _sealed;
  RETURN QUERY EXECUTE format(
    'SELECT ctid::text, %1$s, %2$I FROM %3$I.%4$I
       WHERE ctid >= ''(%5$s,0)''::tid AND ctid < ''(%6$s,0)''::tid AND %7$s LIMIT %8$s',
    _named, _sealed, chukan.schema_of(_agency), _relation, _from, _from + _count,
    chukan.older_than(quote_ident(_sealed), _version), _limit);
END $$;

-- Puts newly sealed values in the place of the old ones and notes how far the walk is; returns how many were taken. A row
-- that is locked, was changed or was moved since it was read is left for the next walk: nobody ever waits for a row here.
CREATE FUNCTION chukan.reencrypt_write(
  _agency integer, _relation text, _sealed text, _places text[], _heads bytea[], _values bytea[], _next bigint,
  _blocks bigint)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
#variable_conflict use_column
DECLARE
  _version integer := chukan.reencryption_of(_agency);
  _count integer;
BEGIN
  PERFORM FROM chukan.sealed_places p WHERE p.relation = _relation AND p.sealed = _sealed;
  IF NOT FOUND THEN
    PERFORM chukan.defect('nothing is sealed there');
  END IF;
  -- The same length and the version that was begun: nothing but a seal of the same content can be put here by mistake.
  EXECUTE format(
    'WITH given AS (SELECT g.place::tid AS place, g.head, g.value FROM unnest($1, $2, $3) g(place, head, value)),
     free AS (SELECT t.ctid AS place, g.value FROM %1$I.%2$I t JOIN given g ON g.place = t.ctid
       WHERE t.ctid = ANY ($1::tid[]) AND substr(t.%3$I, 1, 17) = g.head AND %4$s
         AND octet_length(t.%3$I) = octet_length(g.value) AND substr(g.value, 1, 5) = $4
       FOR UPDATE OF t SKIP LOCKED)
     UPDATE %1$I.%2$I t SET %3$I = f.value FROM free f WHERE t.ctid = ANY ($1::tid[]) AND t.ctid = f.place',
    chukan.schema_of(_agency), _relation, _sealed, chukan.older_than('t.' || quote_ident(_sealed), _version))
    USING _places, _heads, _values, decode('01' || lpad(to_hex(_version), 8, '0'), 'hex');
  GET DIAGNOSTICS _count = ROW_COUNT;
  UPDATE chukan.reencryptions SET place = _relation || '.' || _sealed, block = _next, blocks = _blocks,
    sealed = sealed + _count, at = now() WHERE agency = _agency;
  RETURN _count;
END $$;

-- How many rows of every column that may hold sealed values an older version sealed, 0 left out: the columns are read from
-- the catalogue, so that one that nobody told of is counted too. At most _most are counted of each.
CREATE FUNCTION chukan.sealed_before(_agency integer, _version integer, _most integer)
RETURNS TABLE (relation text, sealed text, count bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _column record;
  _count bigint;
BEGIN
  FOR _column IN SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
                 WHERE c.relnamespace = to_regnamespace(chukan.schema_of(_agency)) AND c.relkind = 'r' AND a.attnum > 0
                   AND NOT a.attisdropped AND a.atttypid = 'bytea'::regtype ORDER BY c.relname, a.attname LOOP
    EXECUTE format('SELECT count(*) FROM (SELECT FROM %I.%I WHERE %s LIMIT %s) s', chukan.schema_of(_agency),
                   _column.relname, chukan.older_than(quote_ident(_column.attname), _version), _most) INTO _count;
    IF _count > 0 THEN
      RETURN QUERY SELECT _column.relname::text, _column.attname::text, _count;
    END IF;
  END LOOP;
END $$;

-- Ends a walk: the rights go back to what they were. A walk that is ended begins anew the next time.
CREATE FUNCTION chukan.reencryption_ended(_agency integer, _whole boolean) RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _lent text[];
BEGIN
  SELECT r.lent INTO _lent FROM chukan.reencryptions r WHERE r.agency = _agency FOR UPDATE;
  UPDATE chukan.reencryptions SET at = now(), lent = '{}', ended_at = CASE WHEN _whole THEN now() ELSE ended_at END
    WHERE agency = _agency;
  RETURN coalesce(_lent, '{}');
END $$;

CREATE FUNCTION chukan.reencrypt_end(_agency integer, _whole boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
  _schema text := chukan.schema_of(_agency);
  _place record;
  _table text;
BEGIN
  FOR _place IN SELECT * FROM chukan.list_sealed_places() p
                WHERE to_regclass(format('%I.%I', _schema, p.relation)) IS NOT NULL LOOP
    EXECUTE format('REVOKE UPDATE (%I) ON %I.%I FROM chukan_fn', _place.sealed, _schema, _place.relation);
  END LOOP;
  FOREACH _table IN ARRAY chukan.reencryption_ended(_agency, _whole) LOOP
    EXECUTE format('REVOKE SELECT ON %I.%I FROM chukan_fn', _schema, _table);
  END LOOP;
END $$;

CREATE FUNCTION chukan.reencryption_progress()
RETURNS TABLE (agency integer, version integer, place text, block bigint, blocks bigint, sealed bigint,
               begun_at timestamptz, at timestamptz, ended_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT r.agency, r.version, r.place, r.block, r.blocks, r.sealed, r.begun_at, r.at, r.ended_at
    FROM chukan.reencryptions r ORDER BY r.agency;
END $$;

-- Raises the floor of one table: from here on it takes no value that a version below seals, whoever writes it (a process
-- that has not heard of the newest key among them), and the second step proves that it holds none. False where the
-- floor stands already.
CREATE FUNCTION chukan.key_floor(_agency integer, _relation text, _sealed text, _version integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
  _table text := format('%I.%I', chukan.schema_of(_agency), _relation);
  _rule text := format('NOT (%s)', chukan.older_than(quote_ident(_sealed), _version));
  _name text := 'key_floor_' || _sealed || '_' || _version;
  _old name;
BEGIN
  IF NOT EXISTS (SELECT FROM chukan.list_sealed_places() p WHERE p.relation = _relation AND p.sealed = _sealed) THEN
    RAISE EXCEPTION USING ERRCODE = 'CK003', MESSAGE = 'nothing is sealed there';
  END IF;
  IF EXISTS (SELECT FROM pg_constraint c WHERE c.conrelid = _table::regclass AND c.conname = _name) THEN
    RETURN false;
  END IF;
  FOR _old IN SELECT c.conname FROM pg_constraint c
              WHERE c.conrelid = _table::regclass AND starts_with(c.conname, 'key_floor_' || _sealed || '_') LOOP
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', _table, _old);
  END LOOP;
  EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (%s) NOT VALID', _table, _name, _rule);
  RETURN true;
END $$;

-- Proves that a table holds nothing below its floor, while it is worked with; 23514 where it does, and then the floor is
-- taken away by key_floor_drop, or a row that is below it could not be changed any more.
CREATE FUNCTION chukan.key_floor_prove(_agency integer, _relation text, _sealed text, _version integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
BEGIN
  EXECUTE format('ALTER TABLE %I.%I VALIDATE CONSTRAINT %I', chukan.schema_of(_agency), _relation,
                 'key_floor_' || _sealed || '_' || _version);
END $$;

CREATE FUNCTION chukan.key_floor_drop(_agency integer, _relation text, _sealed text, _version integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
BEGIN
  EXECUTE format('ALTER TABLE %I.%I DROP CONSTRAINT IF EXISTS %I', chukan.schema_of(_agency), _relation,
                 'key_floor_' || _sealed || '_' || _version);
END $$;

-- Orders to retire old key versions, beside the others.
ALTER TABLE chukan.orders DROP CONSTRAINT orders_action_check;
ALTER TABLE chukan.orders ADD CONSTRAINT orders_action_check CHECK (action IN ('export', 'destroy', 'restore', 'retire'));

CALL chukan.entrust('mark_copies', 'chukan_owner', '');
CALL chukan.entrust('list_sealed_places', 'chukan_fn', 'chukan_steward', 'chukan_owner');
CALL chukan.entrust('older_than', 'chukan_fn', 'chukan_owner');
CALL chukan.entrust('reencryption_of', 'chukan_fn', '');
CALL chukan.entrust('reencryption_note', 'chukan_fn', 'chukan_owner');
CALL chukan.entrust('reencryption_ended', 'chukan_fn', 'chukan_owner');
CALL chukan.entrust('reencrypt_begin', 'chukan_owner', 'chukan_steward');
CALL chukan.entrust('reencrypt_end', 'chukan_owner', 'chukan_steward');
CALL chukan.entrust('reencrypt_blocks', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('reencrypt_read', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('reencrypt_write', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('sealed_before', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('reencryption_progress', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('key_floor', 'chukan_owner', 'chukan_steward');
CALL chukan.entrust('key_floor_prove', 'chukan_owner', 'chukan_steward');
CALL chukan.entrust('key_floor_drop', 'chukan_owner', 'chukan_steward');
