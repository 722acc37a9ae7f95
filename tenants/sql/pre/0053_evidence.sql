-- Evidence of provision records (情報提供等記録の証跡): tiles of each agency's tree, its signed checkpoints, and who cosigned.
--
-- The sequencer gives records their place (0018); a signer reads the new leaves, hashes them, and gives back the tiles that
-- they complete with a signed checkpoint, in one commit. All three tables stand in the agency's schema, so that they move
-- and leave with it. Their rows are never changed: a tree only grows.

-- Tile (level, n): the 16 hashes of tree level 4·level from place 16·n on, kept once all of them stand (tenants/merkle.py).
CREATE TABLE chukan_plain.tiles (
  level  smallint NOT NULL CHECK (level BETWEEN 0 AND 15),
  n      bigint NOT NULL CHECK (n >= 0),
  hashes bytea NOT NULL CHECK (octet_length(hashes) = 512),
  PRIMARY KEY (level, n)
);

-- The root once more beside the note, so that a lookup need not read it out of the text; the key is the guard against forks.
CREATE TABLE chukan_plain.checkpoints (
  size bigint PRIMARY KEY CHECK (size > 0),
  root bytea NOT NULL CHECK (octet_length(root) = 32),
  note bytea NOT NULL,
  at   timestamptz NOT NULL DEFAULT now()
);

-- The other centre's signature line to a checkpoint; the first one stays.
CREATE TABLE chukan_plain.cosignatures (
  size   bigint NOT NULL,
  signer text NOT NULL,
  line   bytea NOT NULL,
  tries  integer NOT NULL DEFAULT 1,
  at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (size, signer)
);

DO $$
DECLARE
  _table name;
BEGIN
  FOREACH _table IN ARRAY ARRAY['tiles', 'checkpoints', 'cosignatures'] LOOP
    EXECUTE format('ALTER TABLE chukan_plain.%I OWNER TO chukan_owner', _table);
  END LOOP;
END $$;
ALTER TABLE chukan_plain.tiles ALTER hashes SET STORAGE EXTERNAL;

-- As before, and what proves.
CREATE OR REPLACE FUNCTION chukan.grant_agency(_agency integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _schema text := chukan.schema_of(_agency);
  _right record;
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA %1$I TO %1$I, chukan_fn', _schema);
  FOR _right IN SELECT * FROM (VALUES
    ('SELECT', ARRAY['queries', 'permits', 'answers', 'provisions', 'records', 'events', 'log', 'codes', 'statistics',
                     'tiles', 'checkpoints', 'cosignatures'],
      ARRAY[_schema]),
    ('SELECT, INSERT, UPDATE', ARRAY['idempotency', 'copy_marks', 'files'], ARRAY[_schema]),
    ('SELECT, INSERT, UPDATE, DELETE', ARRAY['copies', 'loads', 'load_parts', 'stage', 'holds', 'review_drafts'],
      ARRAY[_schema]),
    ('SELECT', ARRAY['queries', 'provisions', 'records', 'log', 'copies', 'holds', 'loads', 'copy_marks'],
      ARRAY['chukan_fn']),
    ('SELECT, DELETE', ARRAY['answers', 'outbox', 'inbox', 'idempotency', 'permits_used', 'files', 'statistics'],
      ARRAY['chukan_fn']),
    ('SELECT, INSERT, UPDATE', ARRAY['codes', 'cosignatures'], ARRAY['chukan_fn']),
    ('SELECT, INSERT', ARRAY['tiles', 'checkpoints'], ARRAY['chukan_fn'])
  ) g(rights, tables, roles) LOOP
    EXECUTE format('GRANT %s ON %s TO %s', _right.rights,
      (SELECT string_agg(format('%I.%I', _schema, t.name), ', ') FROM unnest(_right.tables) t(name)),
      (SELECT string_agg(format('%I', r.name), ', ') FROM unnest(_right.roles) r(name)));
  END LOOP;
END $$;

SELECT chukan.add_plain_table('tiles', 'SELECT', 'SELECT, INSERT');
SELECT chukan.add_plain_table('checkpoints', 'SELECT', 'SELECT, INSERT');
SELECT chukan.add_plain_table('cosignatures', 'SELECT', 'SELECT, INSERT, UPDATE');

-- Up to which size each agency's log is signed: a hint that spares looking into every agency. The agency's own checkpoints
-- are what counts; after a move there is no row here, and the next look makes one.
CREATE TABLE chukan.evidence_heads (
  agency integer PRIMARY KEY,
  size   bigint NOT NULL CHECK (size >= 0),
  at     timestamptz NOT NULL DEFAULT now()
);

-- What a cosigner (the other centre) has seen last of each log: its memory, against which every new checkpoint is held.
CREATE TABLE chukan.witnessed (
  signer text NOT NULL,
  origin text NOT NULL,
  size   bigint NOT NULL CHECK (size > 0),
  root   bytea NOT NULL CHECK (octet_length(root) = 32),
  at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (signer, origin)
) WITH (fillfactor = 70);
ALTER TABLE chukan.evidence_heads OWNER TO chukan_fn;
ALTER TABLE chukan.witnessed OWNER TO chukan_fn;

-- Agencies whose log has grown since its last checkpoint, the longest unsigned first.
CREATE FUNCTION chukan.evidence_due(_limit integer) RETURNS TABLE (agency integer, head bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT h.agency, h.seq FROM chukan.log_heads h
    JOIN chukan.agencies a ON a.agency = h.agency AND a.state = 'open'
    LEFT JOIN chukan.evidence_heads e ON e.agency = h.agency
    WHERE h.seq > coalesce(e.size, 0) ORDER BY e.at NULLS FIRST, h.agency LIMIT _limit;
END $$;

-- Agencies that have a checkpoint, and its size: what cosigners look at.
CREATE FUNCTION chukan.evidence_signed(_after integer, _limit integer) RETURNS TABLE (agency integer, size bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT e.agency, e.size FROM chukan.evidence_heads e
    JOIN chukan.agencies a ON a.agency = e.agency AND a.state = 'open'
    WHERE e.agency > _after AND e.size > 0 ORDER BY e.agency LIMIT _limit;
END $$;

-- An agency's last checkpoint; no row where it has none.
CREATE FUNCTION chukan.evidence_last(_agency integer) RETURNS TABLE (size bigint, root bytea, note bytea, at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM chukan.check_here(ARRAY[_agency]);
  RETURN QUERY EXECUTE format('SELECT c.size, c.root, c.note, c.at FROM %I.checkpoints c ORDER BY c.size DESC LIMIT 1',
                              chukan.schema_of(_agency));
END $$;

-- Tiles by their names; those that are not there are left out.
CREATE FUNCTION chukan.evidence_tiles(_agency integer, _level smallint[], _n bigint[])
RETURNS TABLE (level smallint, n bigint, hashes bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM chukan.check_here(ARRAY[_agency]);
  RETURN QUERY EXECUTE format('SELECT t.level, t.n, t.hashes FROM unnest($1, $2) u(level, n) JOIN %I.tiles t
                               ON t.level = u.level AND t.n = u.n', chukan.schema_of(_agency)) USING _level, _n;
END $$;

-- The data of the leaves after a position, at most _limit, in their order.
CREATE FUNCTION chukan.evidence_leaves(_agency integer, _after bigint, _limit integer)
RETURNS TABLE (seq bigint, leaf_data bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM chukan.check_here(ARRAY[_agency]);
  RETURN QUERY EXECUTE format('SELECT l.seq, l.leaf_data FROM %I.log l WHERE l.agency = %s AND l.seq > $1
                               ORDER BY l.seq LIMIT $2', chukan.schema_of(_agency), _agency) USING _after, _limit;
END $$;

-- Keeps checkpoints and the tiles that they complete, each if the one before is still the last. One signer at a time in a
-- cell, by a lock that ends with the commit (not the sequencer's: neither waits for the other). 'signed' also where the
-- same checkpoint was kept before; 'stale' where another one was; 'busy', for all, where another signer holds the lock.
CREATE FUNCTION chukan.evidence_sign(
  _agency integer[], _before bigint[], _size bigint[], _root bytea[], _note bytea[],
  _t_agency integer[], _t_level smallint[], _t_n bigint[], _t_hashes bytea[]
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _free boolean := pg_try_advisory_xact_lock(4851205431603);
  _i integer;
  _schema text;
  _last bigint;
  _same boolean;
BEGIN
  PERFORM chukan.check_generation(_agency, NULL);
  FOR _i IN 1 .. cardinality(_agency) LOOP
    IF NOT _free THEN
      RETURN NEXT 'busy';
      CONTINUE;
    END IF;
    _schema := chukan.schema_of(_agency[_i]);
    _last := NULL;
    EXECUTE format('SELECT c.size, c.note = $1 FROM %I.checkpoints c ORDER BY c.size DESC LIMIT 1', _schema)
      INTO _last, _same USING _note[_i];
    _same := coalesce(_last = _size[_i] AND _same, false);
    IF _same OR coalesce(_last, 0) <> _before[_i] OR _size[_i] <= _before[_i] THEN
      -- After a move the hint is behind what came along. Writing makes what was found as durable as what is kept now.
      INSERT INTO chukan.evidence_heads AS e (agency, size) VALUES (_agency[_i], coalesce(_last, 0))
        ON CONFLICT (agency) DO UPDATE SET size = excluded.size;
      RETURN NEXT CASE WHEN _same THEN 'signed' ELSE 'stale' END;
    ELSE
      EXECUTE format('INSERT INTO %I.tiles (level, n, hashes) SELECT t.level, t.n, t.hashes
                      FROM unnest($1, $2, $3, $4) t(agency, level, n, hashes) WHERE t.agency = %s', _schema, _agency[_i])
        USING _t_agency, _t_level, _t_n, _t_hashes;
      EXECUTE format('INSERT INTO %I.checkpoints (size, root, note) VALUES ($1, $2, $3)', _schema)
        USING _size[_i], _root[_i], _note[_i];
      INSERT INTO chukan.evidence_heads AS e (agency, size) VALUES (_agency[_i], _size[_i])
        ON CONFLICT (agency) DO UPDATE SET size = excluded.size, at = now();
      RETURN NEXT 'signed';
    END IF;
  END LOOP;
END $$;

-- Keeps a cosignature beside its checkpoint; false where there is no such checkpoint.
CREATE FUNCTION chukan.evidence_cosign(_agency integer, _size bigint, _signer text, _line bytea) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _found boolean;
BEGIN
  PERFORM chukan.check_generation(ARRAY[_agency], NULL);
  EXECUTE format('INSERT INTO %1$I.cosignatures AS s (size, signer, line)
                  SELECT c.size, $2, $3 FROM %1$I.checkpoints c WHERE c.size = $1
                  ON CONFLICT (size, signer) DO UPDATE SET tries = s.tries + 1 RETURNING true',
                 chukan.schema_of(_agency)) INTO _found USING _size, _signer, _line;
  RETURN coalesce(_found, false);
END $$;

-- What a cosigner remembers of logs; those that it never saw are left out.
CREATE FUNCTION chukan.witness_recall(_signer text, _origins text[]) RETURNS TABLE (origin text, size bigint, root bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT w.origin, w.size, w.root FROM chukan.witnessed w
    WHERE w.signer = _signer AND w.origin = ANY (_origins) ORDER BY w.origin;
END $$;

-- Remembers a larger tree in place of the one that it was held against (size 0: none). A memory never goes back: false
-- where it is another one by now. A repeat finds what it kept, and writes.
CREATE FUNCTION chukan.witness_keep(_signer text, _origin text, _before bigint, _size bigint, _root bytea) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _kept boolean;
BEGIN
  INSERT INTO chukan.witnessed AS w (signer, origin, size, root) SELECT _signer, _origin, _size, _root
    WHERE _before = 0 OR EXISTS (SELECT FROM chukan.witnessed o WHERE o.signer = _signer AND o.origin = _origin)
    ON CONFLICT (signer, origin) DO UPDATE SET size = excluded.size, root = excluded.root, at = now()
      WHERE (w.size = _before AND excluded.size > _before) OR (w.size = excluded.size AND w.root = excluded.root)
    RETURNING true INTO _kept;
  RETURN coalesce(_kept, false);
END $$;

-- How many seconds the longest waiting log has been without a checkpoint of its newest leaves, 0 when none waits.
CREATE FUNCTION chukan.evidence_age() RETURNS double precision
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _agency integer;
  _size bigint;
  _oldest double precision := 0;
  _age double precision;
BEGIN
  FOR _agency, _size IN
    SELECT h.agency, coalesce(e.size, 0) FROM chukan.log_heads h
    JOIN chukan.agencies a ON a.agency = h.agency AND a.state = 'open'
    LEFT JOIN chukan.evidence_heads e ON e.agency = h.agency
    WHERE h.seq > coalesce(e.size, 0) ORDER BY e.at NULLS FIRST LIMIT 100
  LOOP
    EXECUTE format('SELECT extract(epoch FROM clock_timestamp() - l.at) FROM %I.log l WHERE l.agency = %s AND l.seq = $1',
                   chukan.schema_of(_agency), _agency) INTO _age USING _size + 1;
    _oldest := greatest(_oldest, coalesce(_age, 0));
  END LOOP;
  RETURN _oldest;
END $$;

CALL chukan.entrust('evidence_due', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('evidence_signed', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('evidence_last', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('evidence_tiles', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('evidence_leaves', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('evidence_sign', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('evidence_cosign', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('witness_recall', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('witness_keep', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('evidence_age', 'chukan_fn', 'chukan_broker');
