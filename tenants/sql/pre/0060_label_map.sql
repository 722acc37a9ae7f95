-- The map of persons (記録の地図, tenants/label_map.py): of each label of an agency's log how many leaves there are and which
-- is the last, as pages of a sparse Merkle tree. Its root is signed with each checkpoint that it belongs to. Unlike tiles,
-- pages change: they are the map of the last checkpoint, and follow from the log alone.

-- The name of a page is how the keys in it begin, in hexadecimal digits; the root's is empty.
CREATE TABLE chukan_plain.map_pages (
  path text COLLATE "C" PRIMARY KEY CHECK (path ~ '^[0-9a-f]{0,64}$'),
  body bytea NOT NULL CHECK (octet_length(body) BETWEEN 65 AND 1025)
);
ALTER TABLE chukan_plain.map_pages OWNER TO chukan_owner;
SELECT chukan.add_plain_table('map_pages', 'SELECT', 'SELECT, INSERT, UPDATE');

-- Which map a cosigner has found to follow from a log: where it goes on from. What is here was checked against the log, and
-- a row that is gone is only more work; that the log itself does not go back is what chukan.witnessed says.
CREATE TABLE chukan.witnessed_maps (
  signer text NOT NULL,
  origin text NOT NULL,
  size   bigint NOT NULL CHECK (size > 0),
  root   bytea NOT NULL CHECK (octet_length(root) = 32),
  tries  integer NOT NULL DEFAULT 1,
  PRIMARY KEY (signer, origin)
) WITH (fillfactor = 70);
ALTER TABLE chukan.witnessed_maps OWNER TO chukan_fn;

-- Pages by their names; those that are not there are left out.
CREATE FUNCTION chukan.map_pages(_agency integer, _path text[]) RETURNS TABLE (path text, body bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM chukan.check_here(ARRAY[_agency]);
  RETURN QUERY EXECUTE format('SELECT p.path, p.body FROM %I.map_pages p WHERE p.path = ANY ($1 COLLATE "C")',
                              chukan.schema_of(_agency)) USING _path;
END $$;

-- evidence_sign (0053), and the pages that the map of these checkpoints has otherwise than the one before, in the same commit.
CREATE FUNCTION chukan.evidence_sign_mapped(
  _agency integer[], _before bigint[], _size bigint[], _root bytea[], _note bytea[],
  _t_agency integer[], _t_level smallint[], _t_n bigint[], _t_hashes bytea[],
  _p_agency integer[], _p_path text[], _p_body bytea[]
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _i integer := 0;
  _word text;
BEGIN
  FOR _word IN SELECT s.word FROM chukan.evidence_sign(_agency, _before, _size, _root, _note,
                                                       _t_agency, _t_level, _t_n, _t_hashes) s(word) LOOP
    _i := _i + 1;
    IF _word = 'signed' THEN
      EXECUTE format('INSERT INTO %I.map_pages AS p (path, body) SELECT m.path, m.body
                      FROM unnest($1, $2, $3) m(agency, path, body) WHERE m.agency = %s
                      ON CONFLICT (path) DO UPDATE SET body = excluded.body', chukan.schema_of(_agency[_i]), _agency[_i])
        USING _p_agency, _p_path, _p_body;
    END IF;
    RETURN NEXT _word;
  END LOOP;
END $$;

-- The map that a cosigner has found right last; no row where there is none.
CREATE FUNCTION chukan.witness_map(_signer text, _origin text) RETURNS TABLE (size bigint, root bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT w.size, w.root FROM chukan.witnessed_maps w WHERE w.signer = _signer AND w.origin = _origin;
END $$;

-- Remembers a map that was found to follow from the log.
CREATE FUNCTION chukan.witness_map_keep(_signer text, _origin text, _size bigint, _root bytea) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO chukan.witnessed_maps AS w (signer, origin, size, root) VALUES (_signer, _origin, _size, _root)
    ON CONFLICT (signer, origin) DO UPDATE SET size = excluded.size, root = excluded.root, tries = w.tries + 1;
  RETURN true;
END $$;

CALL chukan.entrust('map_pages', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('evidence_sign_mapped', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('witness_map', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('witness_map_keep', 'chukan_fn', 'chukan_broker');
