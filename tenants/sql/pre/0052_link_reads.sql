-- What is read of links, and what a gateway's process tells of them: where devices were seen, what differed, which next
-- key is in use, and who has the links in mode 'service'.

-- ---------------------------------------------------------------- what those who decide read

-- Links with their ends, one row for each centre (one without a centre for a link that nothing was asked for).
CREATE FUNCTION chukan.link_rows(_link text, _body text, _limit integer)
RETURNS TABLE (
  link text, body text, mode text, kind text, state text, generation bigint, valid_from timestamptz,
  valid_until timestamptz, invited_by text, suspended_by text, invitation_key bytea, invitation_expires_at timestamptz,
  requested_at timestamptz, request_digest bytea, device_key bytea, device_sealing_key bytea,
  centre text, public_key bytea, next_public_key bytea, psk bytea, next_psk bytea, config jsonb,
  endpoint text, handshake_at timestamptz
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT
      l.link, l.body, l.mode, l.kind, l.state, l.generation, l.valid_from, l.valid_until, l.invited_by, l.suspended_by,
      l.invitation_key, l.invitation_expires_at, l.requested_at, l.request_digest, l.device_key, l.device_sealing_key,
      p.centre, p.public_key, p.next_public_key, p.psk, p.next_psk, p.config, s.endpoint, s.handshake_at
    FROM (SELECT * FROM chukan.links o WHERE o.link = coalesce(_link, o.link) AND o.body = coalesce(_body, o.body)
          ORDER BY o.body, o.serial LIMIT _limit) l
    LEFT JOIN chukan.link_peers p ON p.link = l.link
    LEFT JOIN chukan.link_sightings s ON s.link = p.link AND s.centre = p.centre
    ORDER BY l.body, l.serial, p.centre;
END $$;

CREATE FUNCTION chukan.link_gateway_rows() RETURNS SETOF chukan.link_gateways
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY SELECT g.* FROM chukan.link_gateways g ORDER BY g.centre;
END $$;

-- Lines of the audit, the newest first: of a link, of a body, or all, with those of gateways.
CREATE FUNCTION chukan.link_history(_link text, _body text, _limit integer) RETURNS SETOF chukan.link_change
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY SELECT c.* FROM chukan.link_change c
    WHERE (_link IS NULL OR c.link = _link) AND (_body IS NULL OR c.link LIKE _body || '-%')
    ORDER BY c.n DESC LIMIT _limit;
END $$;

-- ---------------------------------------------------------------- for a gateway's process

CREATE FUNCTION chukan.link_number() RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT c.generation FROM chukan.link_counter c);
END $$;

CREATE FUNCTION chukan.link_gateway(_centre text) RETURNS SETOF chukan.link_gateways
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY SELECT g.* FROM chukan.link_gateways g WHERE g.centre = _centre;
END $$;

-- What a centre's gateway must have, and what it must not have: links that may be there, and those that are suspended
-- or revoked. In mode 'service' the device has one tunnel, so what either centre saw of it last counts for both.
CREATE FUNCTION chukan.link_desired(_centre text)
RETURNS TABLE (
  link text, body text, mode text, kind text, state text, public_key bytea, next_public_key bytea, psk bytea,
  next_psk bytea, config jsonb, valid_from timestamptz, valid_until timestamptz, generation bigint, endpoint text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT
      l.link, l.body, l.mode, l.kind, l.state, p.public_key, p.next_public_key, p.psk, p.next_psk, p.config,
      l.valid_from, l.valid_until, l.generation, s.endpoint
    FROM chukan.links l
    LEFT JOIN chukan.link_peers p ON p.link = l.link AND p.centre = _centre
    LEFT JOIN LATERAL (
      SELECT t.endpoint FROM chukan.link_sightings t
      WHERE t.link = l.link AND (t.centre = _centre OR l.mode = 'service')
      ORDER BY t.handshake_at DESC LIMIT 1
    ) s ON true
    WHERE l.state = 'revoked' OR l.state IN ('active', 'suspended') AND p.link IS NOT NULL
    ORDER BY l.body, l.serial;
END $$;

-- Keeps from where devices were seen, written only where it changed (a handshake alone: every five minutes), so that
-- 2,500 quiet links write nothing. Returns how many rows were written.
CREATE FUNCTION chukan.link_seen(_centre text, _links text[], _endpoints text[], _handshakes timestamptz[])
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _count integer;
BEGIN
  IF cardinality(_links) > 5000 THEN
    PERFORM chukan.defect('too many sightings in one set');
  END IF;
  INSERT INTO chukan.link_sightings AS s (link, centre, endpoint, handshake_at)
    SELECT DISTINCT ON (u.link) u.link, _centre, u.endpoint, u.handshake
    FROM (SELECT r.link, r.endpoint, least(r.handshake, clock_timestamp())  -- a clock that is ahead is ahead of nobody
          FROM unnest(_links, _endpoints, _handshakes) r(link, endpoint, handshake)) u(link, endpoint, handshake)
    JOIN chukan.links l ON l.link = u.link AND l.state IN ('active', 'suspended')
    LEFT JOIN chukan.link_sightings o ON o.link = u.link AND o.centre = _centre
    WHERE o.link IS NULL OR u.handshake >= o.handshake_at
      AND (u.endpoint <> o.endpoint OR u.handshake >= o.handshake_at + interval '5 minutes')
    ORDER BY u.link, u.handshake DESC
  ON CONFLICT (link, centre) DO UPDATE SET endpoint = excluded.endpoint, handshake_at = excluded.handshake_at
    WHERE excluded.handshake_at >= s.handshake_at;
  GET DIAGNOSTICS _count = ROW_COUNT;
  RETURN _count;
END $$;

-- Enters differences that were found on a gateway into the audit. One that is only reported is entered again after ten
-- minutes at the earliest. Returns how many lines were written.
CREATE FUNCTION chukan.link_drifted(_centre text, _links text[], _kinds text[], _repaired boolean[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _count integer;
  _since timestamptz := clock_timestamp() - interval '10 minutes';
BEGIN
  IF cardinality(_kinds) > 1000
     OR EXISTS (SELECT FROM unnest(_kinds, _repaired) u(kind, repaired)
                WHERE u.repaired IS NULL OR u.kind IS NULL OR u.kind !~ '^[a-z_]{1,32}$') THEN
    PERFORM chukan.defect('differences that are none');
  END IF;
  INSERT INTO chukan.link_change (link, centre, act, who, after, generation)
    SELECT u.link, _centre, 'drift', chukan.link_check_person('gateway:' || _centre),
           jsonb_build_object('kind', u.kind, 'repaired', u.repaired), (SELECT c.generation FROM chukan.link_counter c)
    FROM unnest(_links, _kinds, _repaired) WITH ORDINALITY u(link, kind, repaired, n)
    WHERE (u.link IS NULL OR EXISTS (SELECT FROM chukan.links l WHERE l.link = u.link))
      AND (u.repaired OR NOT EXISTS (
        SELECT FROM chukan.link_change o WHERE o.link IS NOT DISTINCT FROM u.link AND o.act = 'drift'
          AND o.centre = _centre AND o.at > _since AND o.after = jsonb_build_object('kind', u.kind, 'repaired', false)))
    ORDER BY u.n;
  GET DIAGNOSTICS _count = ROW_COUNT;
  RETURN _count;
END $$;

-- A next key or pre-shared key was seen in use: it becomes the present one. False where there is nothing next, or where
-- the link was acted upon since the generation that the caller knows.
CREATE FUNCTION chukan.link_rotated(_centre text, _link text, _known bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _generation bigint := chukan.link_next();
  _before jsonb := chukan.link_told(_link);
BEGIN
  PERFORM 1 FROM chukan.links l WHERE l.link = _link AND l.state IN ('active', 'suspended')
    AND l.generation = coalesce(_known, l.generation) FOR UPDATE;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  UPDATE chukan.link_peers p SET public_key = coalesce(p.next_public_key, p.public_key),
    psk = coalesce(p.next_psk, p.psk), next_public_key = NULL, next_psk = NULL
    WHERE p.link = _link AND p.centre = _centre AND (p.next_public_key IS NOT NULL OR p.next_psk IS NOT NULL);
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  PERFORM chukan.link_enter(_generation, _link, _centre, 'rotated', 'gateway:' || _centre, NULL, NULL, _before);
  RETURN true;
END $$;

-- Renews or takes the right to have the links in mode 'service', for _ttl by this server's clock. Returns the epoch,
-- which rises with every other holder; NULL while somebody else has it. On a timeline that is new the last renewals may
-- be lost: whoever held is believed to hold for a whole time more.
CREATE FUNCTION chukan.link_hold_service(_centre text, _owner text, _ttl interval) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _me record;
  _lease record;
  _now timestamptz;
  _epoch bigint;
BEGIN
  PERFORM chukan.link_check_person(_owner);
  IF _ttl NOT BETWEEN interval '1 second' AND interval '5 minutes' THEN
    PERFORM chukan.defect('a lease without bounds');
  END IF;
  SELECT w.system, w.timeline INTO _me FROM chukan.whoami() w;
  SELECT s.owner, s.ttl, s.until, s.epoch, s.system, s.timeline INTO STRICT _lease
    FROM chukan.link_service s FOR UPDATE;
  _now := clock_timestamp();
  IF (_lease.system, _lease.timeline) <> (_me.system, _me.timeline) THEN
    _lease.epoch := _lease.epoch + 1000;
    _lease.until := CASE WHEN _lease.owner IS NULL THEN _lease.until
                    ELSE greatest(_lease.until, _now + greatest(_lease.ttl, _ttl)) END;
    UPDATE chukan.link_service SET system = _me.system, timeline = _me.timeline, epoch = _lease.epoch,
      until = _lease.until;
  END IF;
  IF _lease.owner IS DISTINCT FROM _owner AND _lease.until > _now THEN
    RETURN NULL;
  END IF;
  -- Its own lease that ran out was free for a while: nobody can say that nobody had it.
  UPDATE chukan.link_service s SET centre = _centre, owner = _owner, ttl = _ttl, until = _now + _ttl,
    epoch = CASE WHEN s.owner = _owner AND s.until > _now THEN s.epoch ELSE s.epoch + 1 END
    RETURNING s.epoch INTO _epoch;
  RETURN _epoch;
END $$;

-- Gives the right back at once; false where somebody else has it.
CREATE FUNCTION chukan.link_leave_service(_owner text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE chukan.link_service SET owner = NULL, centre = NULL, until = '-infinity' WHERE owner = _owner;
  RETURN FOUND;
END $$;

DO $$
DECLARE
  _name text;
BEGIN
  FOREACH _name IN ARRAY ARRAY['link_rows', 'link_gateway_rows', 'link_history'] LOOP
    CALL chukan.entrust(_name, 'chukan_fn', 'chukan_steward');
  END LOOP;
  FOREACH _name IN ARRAY ARRAY['link_number', 'link_gateway', 'link_desired', 'link_seen', 'link_drifted',
      'link_rotated', 'link_hold_service', 'link_leave_service'] LOOP
    CALL chukan.entrust(_name, 'chukan_fn', 'chukan_links');
  END LOOP;
END $$;
