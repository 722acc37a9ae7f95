-- Notices to the bodies (お知らせ): planned stops, incidents, kill switches. Published into every cell, never deleted:
-- one that is withdrawn stays in the archive and says so. What each agency has read is known by a row of its own, in the
-- cell that it lives in. A notice is the operator's words to everybody: it must hold nothing about a person.

CREATE TABLE chukan.notice (
  id              uuid PRIMARY KEY,
  at              timestamptz NOT NULL,
  sort            text NOT NULL CHECK (sort IN ('stop', 'resumed', 'planned', 'incident', 'master', 'general')),
  title           text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
  text            text NOT NULL CHECK (length(text) BETWEEN 1 AND 8000),
  starts_at       timestamptz,
  ends_at         timestamptz CHECK (ends_at > starts_at),
  bodies          text[] NOT NULL DEFAULT '{}' CHECK (cardinality(bodies) <= 2000),
  by              text NOT NULL CHECK (length(by) BETWEEN 1 AND 64),
  withdrawn_at    timestamptz,
  withdrawn_by    text CHECK (length(withdrawn_by) BETWEEN 1 AND 64),
  tries           integer NOT NULL DEFAULT 1
);
CREATE INDEX notice_at ON chukan.notice (at DESC, id DESC);
ALTER TABLE chukan.notice OWNER TO chukan_fn;
REVOKE UPDATE, DELETE, TRUNCATE ON chukan.notice FROM chukan_fn;
GRANT UPDATE (withdrawn_at, withdrawn_by, tries) ON chukan.notice TO chukan_fn;
COMMENT ON TABLE chukan.notice IS 'what the operator told the bodies; bodies empty: all of them';

CREATE TABLE chukan.notice_read (
  notice uuid NOT NULL REFERENCES chukan.notice (id),
  agency integer NOT NULL,
  client text NOT NULL CHECK (length(client) BETWEEN 1 AND 64),
  at     timestamptz NOT NULL DEFAULT now(),
  tries  integer NOT NULL DEFAULT 1,
  PRIMARY KEY (notice, agency)
);
ALTER TABLE chukan.notice_read OWNER TO chukan_fn;
REVOKE UPDATE, DELETE, TRUNCATE ON chukan.notice_read FROM chukan_fn;
GRANT UPDATE (tries) ON chukan.notice_read TO chukan_fn;
COMMENT ON TABLE chukan.notice_read IS 'which agency has read a notice, and by whom for the first time';

-- Publishes a notice; known by an id that the caller made, so that it may be repeated.
CREATE FUNCTION chukan.notice_put(
  _id uuid, _at timestamptz, _sort text, _title text, _text text, _starts_at timestamptz, _ends_at timestamptz,
  _bodies text[], _by text
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO chukan.notice AS n (id, at, sort, title, text, starts_at, ends_at, bodies, by)
    VALUES (_id, _at, _sort, _title, _text, _starts_at, _ends_at, _bodies, _by)
    ON CONFLICT (id) DO UPDATE SET tries = n.tries + 1;
  RETURN true;
END $$;

-- Withdraws a notice; the first withdrawal stays. False when there is none.
CREATE FUNCTION chukan.notice_withdraw(_id uuid, _by text, _at timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE chukan.notice n SET withdrawn_at = coalesce(n.withdrawn_at, _at), withdrawn_by = coalesce(n.withdrawn_by, _by),
    tries = n.tries + 1 WHERE n.id = _id;
  RETURN FOUND;
END $$;

-- The notices to a body as one of its agencies sees them, the newest first, behind _after where that is given.
CREATE FUNCTION chukan.notices(_agency integer, _body text, _after uuid, _limit integer)
RETURNS TABLE (id uuid, at timestamptz, sort text, title text, text text, starts_at timestamptz, ends_at timestamptz,
               withdrawn_at timestamptz, read_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT n.id, n.at, n.sort, n.title, n.text, n.starts_at, n.ends_at, n.withdrawn_at, r.at
    FROM chukan.notice n LEFT JOIN chukan.notice_read r ON r.notice = n.id AND r.agency = _agency
    WHERE (n.bodies = '{}' OR _body = ANY (n.bodies))
      AND (_after IS NULL OR (n.at, n.id) < (SELECT a.at, a.id FROM chukan.notice a WHERE a.id = _after))
    ORDER BY n.at DESC, n.id DESC LIMIT least(_limit, 101);
END $$;

-- Says that an agency has read a notice to its body; the first time stays. False when there is no such notice for it.
CREATE FUNCTION chukan.notice_mark(_agency integer, _body text, _client text, _notice uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM chukan.notice n WHERE n.id = _notice AND (n.bodies = '{}' OR _body = ANY (n.bodies))) THEN
    RETURN false;
  END IF;
  INSERT INTO chukan.notice_read AS r (notice, agency, client) VALUES (_notice, _agency, _client)
    ON CONFLICT (notice, agency) DO UPDATE SET tries = r.tries + 1;
  RETURN true;
END $$;

-- The archive, the newest first, with the numbers of the agencies of this cell that have read each.
CREATE FUNCTION chukan.notice_rows(_limit integer)
RETURNS TABLE (id uuid, at timestamptz, sort text, title text, text text, starts_at timestamptz, ends_at timestamptz,
               bodies text[], by text, withdrawn_at timestamptz, withdrawn_by text, read_by integer[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT n.id, n.at, n.sort, n.title, n.text, n.starts_at, n.ends_at, n.bodies, n.by, n.withdrawn_at,
      n.withdrawn_by, ARRAY(SELECT r.agency FROM chukan.notice_read r WHERE r.notice = n.id ORDER BY r.agency)
    FROM chukan.notice n ORDER BY n.at DESC, n.id DESC LIMIT least(_limit, 1000);
END $$;

CALL chukan.entrust('notice_put', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('notice_withdraw', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('notices', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('notice_mark', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('notice_rows', 'chukan_fn', 'chukan_steward');
