-- Links as the agency API tells them and lets officers act on them (0049 holds the links themselves). The broker's login
-- needs these two functions and no other of links: what it may do, it may do to the links of a given body alone, it
-- reads no key and no endpoint, and it approves nothing.
--
-- A request of an officer is known by its Idempotency-Key, kept in the commit of the act. Order of locks: the key < the
-- counter < links, the last two as in 0049.

CREATE TABLE chukan.link_asked (
  agency  integer NOT NULL,
  key     bytea NOT NULL CHECK (octet_length(key) = 32),
  content bytea NOT NULL CHECK (octet_length(content) = 32),
  tries   integer NOT NULL DEFAULT 1,
  at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (agency, key)
);
CREATE INDEX link_asked_at ON chukan.link_asked (at);
ALTER TABLE chukan.link_asked OWNER TO chukan_fn;
COMMENT ON TABLE chukan.link_asked IS 'digests of requests that officers made of links, kept for eight days';

-- The links of a body, in their order, with their ends by centre.
CREATE FUNCTION chukan.body_links(_body text)
RETURNS TABLE (link text, mode text, kind text, state text, generation bigint, valid_from timestamptz,
               valid_until timestamptz, suspended_by text, centres text[], handshakes timestamptz[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT l.link, l.mode, l.kind, l.state, l.generation, l.valid_from, l.valid_until,
      -- An operator's name is nothing for a body.
      CASE WHEN l.state = 'suspended' THEN CASE WHEN l.suspended_by LIKE 'officer:%' THEN 'officer' ELSE 'operator' END END,
      p.centres, p.handshakes
    FROM chukan.links l
    CROSS JOIN LATERAL (
      SELECT coalesce(array_agg(e.centre ORDER BY e.centre COLLATE "C"), '{}') AS centres,
             coalesce(array_agg(s.handshake_at ORDER BY e.centre COLLATE "C"), '{}') AS handshakes
      FROM chukan.link_peers e LEFT JOIN chukan.link_sightings s ON s.link = e.link AND s.centre = e.centre
      WHERE e.link = l.link
    ) p
    WHERE l.body = _body ORDER BY l.serial;
END $$;

-- An officer's act on a link of the body: suspend, resume, revoke. Returns 'done', 'repeat' where this key's request was
-- carried out before, or the code of the refusal, of which nothing stays. What an operator suspended officers do not
-- resume; of officers it takes another one.
CREATE FUNCTION chukan.body_link_act(
  _agency integer, _key bytea, _content bytea, _body text, _link text, _act text, _officer text, _reason text
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _who text := 'officer:' || _officer;
  _known record;
BEGIN
  DELETE FROM chukan.link_asked a USING (
    SELECT o.agency, o.key FROM chukan.link_asked o WHERE o.at < clock_timestamp() - interval '8 days'
    ORDER BY o.at LIMIT 100 FOR UPDATE SKIP LOCKED) o WHERE a.agency = o.agency AND a.key = o.key;
  INSERT INTO chukan.link_asked AS a (agency, key, content) VALUES (_agency, _key, _content)
    ON CONFLICT (agency, key) DO UPDATE SET tries = a.tries + 1
    RETURNING a.content = _content AS same, a.tries = 1 AS fresh INTO STRICT _known;
  IF NOT _known.same THEN
    PERFORM chukan.link_refuse('idempotency_key_reused');
  END IF;
  IF NOT _known.fresh THEN
    RETURN 'repeat';
  END IF;
  PERFORM chukan.link_next();  -- the turn: what is read below stands until the commit
  IF NOT EXISTS (SELECT FROM chukan.links l WHERE l.link = _link AND l.body = _body) THEN
    PERFORM chukan.link_refuse('no_such_link');
  END IF;
  CASE _act
    WHEN 'suspend' THEN PERFORM chukan.link_suspend(_link, _who, NULL, _reason);
    WHEN 'revoke' THEN PERFORM chukan.link_revoke(_link, _who, NULL, _reason);
    WHEN 'resume' THEN
      IF EXISTS (SELECT FROM chukan.links l WHERE l.link = _link AND l.state = 'suspended'
                 AND l.suspended_by NOT LIKE 'officer:%') THEN
        PERFORM chukan.link_refuse('link_of_operator');
      END IF;
      PERFORM chukan.link_resume(_link, NULL, _who, _reason);
    ELSE PERFORM chukan.defect('an act that officers have not');
  END CASE;
  RETURN 'done';
EXCEPTION WHEN SQLSTATE 'CK010' THEN
  RETURN SQLERRM;
END $$;

CALL chukan.entrust('body_links', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('body_link_act', 'chukan_fn', 'chukan_broker');
