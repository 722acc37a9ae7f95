-- Acts on links and gateways, by those who decide: operators, by the steward's login. (What officers of a body may do
-- they do through 0050.) Each begins with link_next() and ends with its line of the audit; what is refused leaves
-- nothing.

-- Invites a body: the lowest serial that it never had. A repeat with the same key gets the same link.
CREATE FUNCTION chukan.link_invite(
  _body text, _mode text, _kind text, _key bytea, _expires_at timestamptz, _who text
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _generation bigint := chukan.link_next();
  _now timestamptz := clock_timestamp();
  _known record;
  _serial integer;
  _link text;
BEGIN
  SELECT l.link, l.body, l.mode, l.kind, l.state INTO _known FROM chukan.links l WHERE l.invitation_key = _key;
  IF FOUND THEN
    IF (_known.body, _known.mode, _known.kind, _known.state) IS DISTINCT FROM (_body, _mode, _kind, 'invited') THEN
      PERFORM chukan.link_refuse('invitation_invalid');
    END IF;
    RETURN _known.link;
  END IF;
  -- The caller's clock may be a little ahead.
  IF _expires_at <= _now OR _expires_at > _now + interval '14 days 5 minutes' THEN
    PERFORM chukan.link_refuse('invitation_invalid');
  END IF;
  IF (SELECT count(*) FROM chukan.links l WHERE l.body = _body
        AND (l.state = 'requested' OR l.state = 'invited' AND l.invitation_expires_at > _now)) >= 3 THEN
    PERFORM chukan.link_refuse('invitations_open');
  END IF;
  SELECT min(s.n) INTO _serial FROM generate_series(1, 63) s(n)
    WHERE NOT EXISTS (SELECT FROM chukan.links l WHERE l.body = _body AND l.serial = s.n);
  IF _serial IS NULL THEN
    PERFORM chukan.link_refuse('links_full');
  END IF;
  _link := _body || '-' || _serial::text;
  INSERT INTO chukan.links (link, body, serial, mode, kind, state, generation, invited_by, invitation_key,
                            invitation_expires_at)
    VALUES (_link, _body, _serial, _mode, _kind, 'invited', _generation, _who, _key, _expires_at);
  PERFORM chukan.link_enter(_generation, _link, NULL, 'invite', _who, NULL, NULL, NULL);
  RETURN _link;
END $$;

-- Takes in what a device asks for under an invitation: its keys by centre. The same request again changes nothing.
CREATE FUNCTION chukan.link_request(
  _link text, _invitation_key bytea, _device_key bytea, _device_sealing_key bytea, _digest bytea,
  _centres text[], _keys bytea[], _configs text[], _who text
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _generation bigint := chukan.link_next();
  _before jsonb;
  _row chukan.links;
BEGIN
  _before := chukan.link_take(_link, 'invited', 'requested');
  SELECT l.* INTO _row FROM chukan.links l WHERE l.link = _link;
  IF _row.state = 'requested' THEN
    IF _row.request_digest <> _digest THEN
      PERFORM chukan.link_refuse('link_state');
    END IF;
    RETURN;
  END IF;
  IF _row.invitation_key <> _invitation_key OR _row.invitation_expires_at <= clock_timestamp() THEN
    PERFORM chukan.link_refuse('invitation_invalid');
  END IF;
  IF cardinality(_centres) NOT BETWEEN 1 AND 4 OR EXISTS (
       SELECT FROM unnest(_keys, _configs) u(key, config)
       WHERE CASE _row.kind WHEN 'wireguard' THEN u.key IS NULL ELSE u.key IS NOT NULL OR u.config IS NULL END) THEN
    PERFORM chukan.defect('a request that does not fit its kind');
  END IF;
  INSERT INTO chukan.link_peers (link, centre, public_key, config)
    SELECT _link, u.centre, u.key, u.config::jsonb FROM unnest(_centres, _keys, _configs) u(centre, key, config);
  PERFORM chukan.link_claim(_link, _keys);
  UPDATE chukan.links SET state = 'requested', requested_at = clock_timestamp(), request_digest = _digest,
    device_key = _device_key, device_sealing_key = _device_sealing_key WHERE link = _link;
  PERFORM chukan.link_enter(_generation, _link, NULL, 'request', _who, NULL, NULL, _before);
END $$;

-- Approves a request, each centre's pre-shared key sealed for its gateway: another person than the one who invited.
CREATE FUNCTION chukan.link_approve(
  _link text, _centres text[], _psks bytea[], _valid_from timestamptz, _valid_until timestamptz, _who text, _second text
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _generation bigint := chukan.link_next();
  _before jsonb := chukan.link_take(_link, 'requested');
  _inviter text;
BEGIN
  SELECT l.invited_by INTO _inviter FROM chukan.links l WHERE l.link = _link;
  PERFORM chukan.link_check_second(_second, _who, _inviter);
  IF ARRAY(SELECT u.centre FROM unnest(_centres) u(centre) ORDER BY u.centre COLLATE "C")
     IS DISTINCT FROM ARRAY(SELECT p.centre FROM chukan.link_peers p WHERE p.link = _link ORDER BY p.centre COLLATE "C")
     OR cardinality(_psks) <> cardinality(_centres) OR array_position(_psks, NULL) IS NOT NULL THEN
    PERFORM chukan.defect('an approval without a key for each centre');
  END IF;
  IF _valid_until <= clock_timestamp() THEN
    PERFORM chukan.defect('an approval that is over');
  END IF;
  UPDATE chukan.link_peers p SET psk = u.psk FROM unnest(_centres, _psks) u(centre, psk)
    WHERE p.link = _link AND p.centre = u.centre;
  UPDATE chukan.links SET state = 'active', valid_from = _valid_from, valid_until = _valid_until WHERE link = _link;
  PERFORM chukan.link_enter(_generation, _link, NULL, 'approve', coalesce(_who, _inviter), _second, NULL, _before);
END $$;

-- Takes a link out of service. What an officer suspended an operator may suspend too: from then on it is the operator's,
-- and officers do not resume it.
CREATE FUNCTION chukan.link_suspend(_link text, _who text, _second text, _reason text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _generation bigint := chukan.link_next();
  _before jsonb := chukan.link_take(_link, 'active', 'suspended');
BEGIN
  IF EXISTS (SELECT FROM chukan.links l WHERE l.link = _link AND l.state = 'suspended'
             AND (l.suspended_by NOT LIKE 'officer:%' OR _who LIKE 'officer:%')) THEN
    PERFORM chukan.link_refuse('link_state');
  END IF;
  IF _second IS NOT NULL THEN
    PERFORM chukan.link_check_second(_second, _who);
  END IF;
  UPDATE chukan.links SET state = 'suspended', suspended_by = _who WHERE link = _link;
  PERFORM chukan.link_enter(_generation, _link, NULL, 'suspend', _who, _second, _reason, _before);
END $$;

-- Takes a suspension back: another person than the one who suspended, and than the one who asks.
CREATE FUNCTION chukan.link_resume(_link text, _who text, _second text, _reason text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _generation bigint := chukan.link_next();
  _before jsonb := chukan.link_take(_link, 'suspended');
  _suspender text;
BEGIN
  SELECT l.suspended_by INTO _suspender FROM chukan.links l WHERE l.link = _link;
  PERFORM chukan.link_check_second(_second, _who, _suspender);
  UPDATE chukan.links SET state = 'active', suspended_by = NULL WHERE link = _link;
  PERFORM chukan.link_enter(_generation, _link, NULL, 'resume', coalesce(_who, _suspender), _second, _reason, _before);
END $$;

-- Ends a link for ever. Its name, its prefixes and its keys stay as a tombstone; what was sealed goes.
CREATE FUNCTION chukan.link_revoke(_link text, _who text, _second text, _reason text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _generation bigint := chukan.link_next();
  _before jsonb := chukan.link_take(_link, 'invited', 'requested', 'active', 'suspended');
BEGIN
  IF _second IS NOT NULL THEN
    PERFORM chukan.link_check_second(_second, _who);
  END IF;
  UPDATE chukan.links SET state = 'revoked' WHERE link = _link;
  UPDATE chukan.link_peers SET psk = NULL, next_psk = NULL WHERE link = _link;
  DELETE FROM chukan.link_sightings WHERE link = _link;
  PERFORM chukan.link_enter(_generation, _link, NULL, 'revoke', _who, _second, _reason, _before);
END $$;

-- Changes until when a link may be used; two persons, as for the approval.
CREATE FUNCTION chukan.link_extend(
  _link text, _valid_from timestamptz, _valid_until timestamptz, _who text, _second text
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _generation bigint := chukan.link_next();
  _before jsonb := chukan.link_take(_link, 'active', 'suspended');
BEGIN
  PERFORM chukan.link_check_second(_second, _who);
  UPDATE chukan.links SET valid_from = _valid_from, valid_until = _valid_until WHERE link = _link;
  PERFORM chukan.link_enter(_generation, _link, NULL, 'extend', _who, _second, NULL, _before);
END $$;

-- Lays down the next key or pre-shared key at one centre, or both; the present ones hold until link_rotated(). A device
-- may have turned to a next one already, so it is replaced by yet another one only on demand. An appliance's keys stand
-- on a sheet that anybody could use, so they take another person, as its approval does; a device's are sealed for it.
CREATE FUNCTION chukan.link_next_key(
  _link text, _centre text, _key bytea, _psk bytea, _replace boolean, _who text, _second text
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _generation bigint := chukan.link_next();
  _before jsonb := chukan.link_take(_link, 'active', 'suspended');
  _peer chukan.link_peers;
BEGIN
  SELECT p.* INTO _peer FROM chukan.link_peers p WHERE p.link = _link AND p.centre = _centre;
  IF NOT FOUND THEN
    PERFORM chukan.link_refuse('no_such_link');
  END IF;
  IF _key IS NULL AND _psk IS NULL OR _key IS NOT NULL AND _peer.public_key IS NULL THEN
    PERFORM chukan.defect('a rotation of nothing');
  END IF;
  IF _second IS NOT NULL THEN
    PERFORM chukan.link_check_second(_second, _who);
  ELSIF EXISTS (SELECT FROM chukan.links l WHERE l.link = _link AND l.kind = 'ipsec') THEN
    PERFORM chukan.link_refuse('second_person');
  END IF;
  IF (_peer.next_public_key IS NOT NULL OR _peer.next_psk IS NOT NULL) AND NOT _replace THEN
    IF (_peer.next_public_key, _peer.next_psk) IS NOT DISTINCT FROM (_key, _psk) THEN
      RETURN;  -- a repeat
    END IF;
    PERFORM chukan.link_refuse('link_state');
  END IF;
  -- A key that was given up may have been given up for a reason: of those known only one that is in use may come, at
  -- the other centre, or as what is next here.
  IF _key = _peer.public_key OR EXISTS (SELECT FROM chukan.link_keys k WHERE k.public_key = _key)
     AND _key IS DISTINCT FROM _peer.next_public_key AND NOT EXISTS (
       SELECT FROM chukan.link_peers p
       WHERE p.link = _link AND p.centre <> _centre AND _key IN (p.public_key, p.next_public_key)) THEN
    PERFORM chukan.link_refuse('link_key_taken');
  END IF;
  PERFORM chukan.link_claim(_link, ARRAY[_key]);
  UPDATE chukan.link_peers SET next_public_key = _key, next_psk = _psk WHERE link = _link AND centre = _centre;
  PERFORM chukan.link_enter(_generation, _link, _centre, 'next_key', _who, _second, NULL, _before);
END $$;

-- Makes or changes a centre's gateway: NULL leaves as it is. A new present key ends what was laid down as the next.
CREATE FUNCTION chukan.link_gateway_put(
  _centre text, _endpoint text, _public_key bytea, _sealing_key bytea, _next_public_key bytea, _next_endpoint text,
  _service_public_key bytea, _who text
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _generation bigint := chukan.link_next();
  _before jsonb := chukan.link_gateway_told(_centre);
BEGIN
  IF _before IS NULL AND (_endpoint IS NULL OR _public_key IS NULL OR _sealing_key IS NULL) THEN
    PERFORM chukan.link_refuse('gateway_incomplete');
  END IF;
  IF EXISTS (SELECT FROM chukan.link_keys k WHERE k.public_key IN (_public_key, _next_public_key, _service_public_key))
     OR EXISTS (SELECT FROM chukan.link_gateways g WHERE g.centre <> _centre
                AND (g.public_key IN (_public_key, _next_public_key)
                     OR g.next_public_key IN (_public_key, _next_public_key))) THEN
    PERFORM chukan.link_refuse('link_key_taken');
  END IF;
  IF _before IS NULL THEN
    INSERT INTO chukan.link_gateways (centre, endpoint, public_key, sealing_key, next_public_key, next_endpoint,
                                      service_public_key, generation)
      VALUES (_centre, _endpoint, _public_key, _sealing_key, _next_public_key, _next_endpoint, _service_public_key,
              _generation);
  ELSE
    UPDATE chukan.link_gateways g SET
      endpoint = coalesce(_endpoint, g.endpoint), public_key = coalesce(_public_key, g.public_key),
      sealing_key = coalesce(_sealing_key, g.sealing_key),
      next_public_key = coalesce(_next_public_key, CASE WHEN _public_key IS NULL THEN g.next_public_key END),
      next_endpoint = coalesce(_next_endpoint, CASE WHEN _public_key IS NULL THEN g.next_endpoint END),
      service_public_key = coalesce(_service_public_key, g.service_public_key), generation = _generation
      WHERE g.centre = _centre;
  END IF;
  INSERT INTO chukan.link_change (centre, act, who, before, after, generation)
    VALUES (_centre, 'gateway', chukan.link_check_person(_who), _before, chukan.link_gateway_told(_centre),
            _generation);
END $$;

-- The gateway's next key and endpoint become its present ones; refused where none was laid down.
CREATE FUNCTION chukan.link_gateway_turn(_centre text, _who text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _generation bigint := chukan.link_next();
  _before jsonb := chukan.link_gateway_told(_centre);
BEGIN
  UPDATE chukan.link_gateways g SET public_key = coalesce(g.next_public_key, g.public_key),
    endpoint = coalesce(g.next_endpoint, g.endpoint), next_public_key = NULL, next_endpoint = NULL,
    generation = _generation
    WHERE g.centre = _centre AND (g.next_public_key IS NOT NULL OR g.next_endpoint IS NOT NULL);
  IF NOT FOUND THEN
    PERFORM chukan.link_refuse('link_state');
  END IF;
  INSERT INTO chukan.link_change (centre, act, who, before, after, generation)
    VALUES (_centre, 'gateway_turn', chukan.link_check_person(_who), _before, chukan.link_gateway_told(_centre),
            _generation);
END $$;

-- Has a centre's links moved to the other centre, or allows them back. False where it is so already.
CREATE FUNCTION chukan.link_drain(_centre text, _on boolean, _who text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _generation bigint := chukan.link_next();
  _before jsonb := chukan.link_gateway_told(_centre);
BEGIN
  IF _before IS NULL THEN
    PERFORM chukan.link_refuse('gateway_incomplete');
  END IF;
  UPDATE chukan.link_gateways g SET draining = _on, generation = _generation
    WHERE g.centre = _centre AND g.draining <> _on;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  INSERT INTO chukan.link_change (centre, act, who, before, after, generation)
    VALUES (_centre, CASE WHEN _on THEN 'drain' ELSE 'undrain' END, chukan.link_check_person(_who), _before,
            chukan.link_gateway_told(_centre), _generation);
  RETURN true;
END $$;

DO $$
DECLARE
  _name text;
BEGIN
  FOREACH _name IN ARRAY ARRAY['link_invite', 'link_request', 'link_extend', 'link_next_key', 'link_gateway_put',
      'link_gateway_turn', 'link_drain', 'link_approve', 'link_suspend', 'link_resume', 'link_revoke'] LOOP
    CALL chukan.entrust(_name, 'chukan_fn', 'chukan_steward');
  END LOOP;
END $$;
