-- The desired state of the links of bodies (団体の回線), in one cell of the installation: who may have one, how it stands,
-- and what the gateway of each centre must have. A gateway's process has a login of its own for it.
--
-- States: invited -> requested -> active <-> suspended; revoked from any of them, for ever. Rows are never deleted: a
-- revoked link is the tombstone of its serial and of its keys. Each act gives the next generation (one counter for all)
-- and writes its line of link_change in the same commit. Order of locks: the counter < links < all else of a link; so
-- acts come one after the other, and of two that exclude each other one finds the state of after the first.
--
-- Errors: CK010, the message being the code of the refusal; CK003 as everywhere.

DO $$
BEGIN
  BEGIN
    CREATE ROLE chukan_links;
  EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- another database of this server made it
  END;
  ALTER ROLE chukan_links LOGIN NOINHERIT;
  ALTER ROLE chukan_links SET plan_cache_mode = force_custom_plan;
  ALTER ROLE chukan_links SET synchronous_commit = on;
  ALTER ROLE chukan_links SET jit = off;
  ALTER ROLE chukan_links SET idle_in_transaction_session_timeout = '30s';
  ALTER ROLE chukan_links SET statement_timeout = '30s';
  ALTER ROLE chukan_links SET lock_timeout = '10s';
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO chukan_links', current_database());
END $$;
GRANT USAGE ON SCHEMA chukan TO chukan_links;
GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) TO chukan_links;  -- as the other logins (0001)
GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) TO chukan_steward;  -- its hint, after an act's commit
GRANT EXECUTE ON FUNCTION chukan.environment() TO chukan_links;
GRANT EXECUTE ON FUNCTION chukan.open_doors() TO chukan_links;
GRANT EXECUTE ON FUNCTION chukan.opening() TO chukan_links;
GRANT EXECUTE ON FUNCTION chukan.whoami() TO chukan_links;

-- ---------------------------------------------------------------- tables

CREATE TABLE chukan.link_counter (
  one        boolean PRIMARY KEY DEFAULT true CHECK (one),
  generation bigint NOT NULL DEFAULT 0 CHECK (generation >= 0),
  system     text NOT NULL DEFAULT '',
  timeline   integer NOT NULL DEFAULT 0
);
INSERT INTO chukan.link_counter DEFAULT VALUES;

CREATE TABLE chukan.links (
  link                  text PRIMARY KEY,
  body                  text NOT NULL CHECK (body ~ '^[0-9]{6}$' AND left(body, 5)::integer BETWEEN 1 AND 65535),
  serial                smallint NOT NULL CHECK (serial BETWEEN 1 AND 63),
  mode                  text NOT NULL CHECK (mode IN ('pair', 'service')),
  kind                  text NOT NULL CHECK (kind IN ('wireguard', 'ipsec')),
  state                 text NOT NULL CHECK (state IN ('invited', 'requested', 'active', 'suspended', 'revoked')),
  generation            bigint NOT NULL,
  valid_from            timestamptz,
  valid_until           timestamptz,
  invited_by            text NOT NULL,
  suspended_by          text,
  invitation_key        bytea NOT NULL UNIQUE CHECK (octet_length(invitation_key) = 32),
  invitation_expires_at timestamptz NOT NULL,
  requested_at          timestamptz,
  request_digest        bytea CHECK (octet_length(request_digest) = 32),
  device_key            bytea CHECK (octet_length(device_key) = 32),
  device_sealing_key    bytea CHECK (octet_length(device_sealing_key) = 32),
  UNIQUE (body, serial),
  CHECK (link = body || '-' || serial::text),
  CHECK (valid_from < valid_until),
  CHECK (state NOT IN ('requested', 'active', 'suspended') OR request_digest IS NOT NULL AND device_key IS NOT NULL
         AND device_sealing_key IS NOT NULL AND requested_at IS NOT NULL)
);

CREATE TABLE chukan.link_peers (
  link            text NOT NULL REFERENCES chukan.links (link),
  centre          text NOT NULL CHECK (centre ~ '^[a-z][a-z0-9-]{0,31}$'),
  public_key      bytea CHECK (octet_length(public_key) = 32),
  next_public_key bytea CHECK (octet_length(next_public_key) = 32),
  psk             bytea CHECK (octet_length(psk) BETWEEN 1 AND 1024),
  next_psk        bytea CHECK (octet_length(next_psk) BETWEEN 1 AND 1024),
  config          jsonb CHECK (octet_length(config::text) <= 4096),
  PRIMARY KEY (link, centre)
);
COMMENT ON COLUMN chukan.link_peers.psk IS 'pre-shared key, sealed for the gateway of the centre';

-- Whose a device's public key is or was: it is never another link's.
CREATE TABLE chukan.link_keys (
  public_key bytea PRIMARY KEY CHECK (octet_length(public_key) = 32),
  link       text NOT NULL REFERENCES chukan.links (link)
);

CREATE TABLE chukan.link_sightings (
  link         text NOT NULL,
  centre       text NOT NULL,
  endpoint     text NOT NULL CHECK (length(endpoint) BETWEEN 3 AND 80),
  handshake_at timestamptz NOT NULL,
  PRIMARY KEY (link, centre)
);

CREATE TABLE chukan.link_gateways (
  centre             text PRIMARY KEY CHECK (centre ~ '^[a-z][a-z0-9-]{0,31}$'),
  endpoint           text NOT NULL CHECK (length(endpoint) BETWEEN 3 AND 260),
  public_key         bytea NOT NULL CHECK (octet_length(public_key) = 32),
  sealing_key        bytea NOT NULL CHECK (octet_length(sealing_key) = 32),
  next_public_key    bytea CHECK (octet_length(next_public_key) = 32),
  next_endpoint      text CHECK (length(next_endpoint) BETWEEN 3 AND 260),
  service_public_key bytea CHECK (octet_length(service_public_key) = 32),
  draining           boolean NOT NULL DEFAULT false,
  generation         bigint NOT NULL
);

-- The audit: who did what, and how the link or gateway stood before and after. Append-only.
CREATE TABLE chukan.link_change (
  n          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  link       text,
  centre     text,
  act        text NOT NULL CHECK (act ~ '^[a-z_]{1,32}$'),
  who        text NOT NULL,
  second     text,
  reason     text CHECK (length(reason) <= 200),
  before     jsonb,
  after      jsonb,
  generation bigint NOT NULL
);
CREATE INDEX link_change_of_link ON chukan.link_change (link, n);

-- Who may have the links in mode 'service' (one for all): fenced by this server's clock, with an epoch that only rises.
CREATE TABLE chukan.link_service (
  one      boolean PRIMARY KEY DEFAULT true CHECK (one),
  centre   text,
  owner    text,
  ttl      interval NOT NULL DEFAULT '0',
  until    timestamptz NOT NULL DEFAULT '-infinity',
  epoch    bigint NOT NULL DEFAULT 0,
  system   text NOT NULL DEFAULT '',
  timeline integer NOT NULL DEFAULT 0
);
INSERT INTO chukan.link_service DEFAULT VALUES;

DO $$
DECLARE
  _table text;
BEGIN
  FOREACH _table IN ARRAY ARRAY['link_counter', 'links', 'link_peers', 'link_keys', 'link_sightings', 'link_gateways',
                                'link_change', 'link_service'] LOOP
    EXECUTE format('ALTER TABLE chukan.%I OWNER TO chukan_fn', _table);
    EXECUTE format('REVOKE TRUNCATE ON chukan.%I FROM chukan_fn', _table);
  END LOOP;
END $$;
REVOKE UPDATE, DELETE ON chukan.link_change, chukan.link_keys FROM chukan_fn;
REVOKE DELETE ON chukan.links, chukan.link_peers, chukan.link_gateways, chukan.link_counter FROM chukan_fn;

-- ---------------------------------------------------------------- what all acts share

CREATE FUNCTION chukan.link_refuse(_code text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'CK010', MESSAGE = _code;
END $$;

-- Begins an act: the next generation, and the turn to change links until the commit. A server that lost its last
-- commits, or a restored one, goes on far above what it may have given out already: a gateway that has seen a later
-- generation of a link than the cell now knows keeps what it has until somebody acts on that link again.
CREATE FUNCTION chukan.link_next() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _me record;
  _next bigint;
BEGIN
  SELECT w.system, w.timeline INTO _me FROM chukan.whoami() w;
  UPDATE chukan.link_counter c SET
    generation = greatest(
      c.generation + CASE WHEN c.system IN ('', _me.system) AND c.timeline IN (0, _me.timeline) THEN 1 ELSE 1000 END,
      ((SELECT o.epoch FROM chukan.opening() o) - 1)::bigint * 1000000000000 + 1),
    system = _me.system, timeline = _me.timeline
    RETURNING c.generation INTO STRICT _next;
  RETURN _next;
END $$;

-- One who acts, as those who know him name him; never a name with a space, which no credential has.
CREATE FUNCTION chukan.link_check_person(_who text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF _who IS NULL OR _who !~ '^[A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,119}$' THEN
    PERFORM chukan.defect('somebody without a name');
  END IF;
  RETURN _who;
END $$;

-- Confirms that the second person is none of the others, who may be unknown (NULL).
CREATE FUNCTION chukan.link_check_second(_second text, VARIADIC _others text[]) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM chukan.link_check_person(_second);
  IF EXISTS (SELECT FROM unnest(_others) o(who) WHERE lower(o.who) = lower(_second)) THEN
    PERFORM chukan.link_refuse('second_person');
  END IF;
END $$;

-- How the audit names a key.
CREATE FUNCTION chukan.link_key_id(_key bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN left(encode(sha256(_key), 'hex'), 8);
END $$;

-- A link as the audit tells it: no key, nothing sealed, no endpoint. NULL where there is none.
CREATE FUNCTION chukan.link_told(_link text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN (SELECT jsonb_strip_nulls(jsonb_build_object(
      'state', l.state, 'mode', l.mode, 'kind', l.kind, 'valid_from', l.valid_from, 'valid_until', l.valid_until,
      'invitation', chukan.link_key_id(l.invitation_key), 'invitation_expires_at', l.invitation_expires_at,
      'device_key', chukan.link_key_id(l.device_key), 'device_sealing_key', chukan.link_key_id(l.device_sealing_key),
      'peers', (SELECT jsonb_object_agg(p.centre, jsonb_build_object(
                  'key', chukan.link_key_id(p.public_key), 'next_key', chukan.link_key_id(p.next_public_key),
                  'psk', p.psk IS NOT NULL, 'next_psk', p.next_psk IS NOT NULL,
                  'config', chukan.link_key_id(convert_to(p.config::text, 'UTF8'))))
                FROM chukan.link_peers p WHERE p.link = l.link)))
    FROM chukan.links l WHERE l.link = _link);
END $$;

-- The same of a gateway.
CREATE FUNCTION chukan.link_gateway_told(_centre text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN (SELECT jsonb_strip_nulls(jsonb_build_object(
      'key', chukan.link_key_id(g.public_key), 'next_key', chukan.link_key_id(g.next_public_key),
      'sealing_key', chukan.link_key_id(g.sealing_key), 'service_key', chukan.link_key_id(g.service_public_key),
      'endpoint', g.endpoint, 'next_endpoint', g.next_endpoint, 'draining', g.draining))
    FROM chukan.link_gateways g WHERE g.centre = _centre);
END $$;

-- Locks a link in one of these states, and returns how the audit tells it before the act.
CREATE FUNCTION chukan.link_take(_link text, VARIADIC _states text[]) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _state text;
BEGIN
  SELECT l.state INTO _state FROM chukan.links l WHERE l.link = _link FOR UPDATE;
  IF NOT FOUND THEN
    PERFORM chukan.link_refuse('no_such_link');
  END IF;
  IF _state <> ALL (_states) THEN
    PERFORM chukan.link_refuse('link_state');
  END IF;
  RETURN chukan.link_told(_link);
END $$;

-- Gives an act on a link its generation and its line in the audit, once all else is done.
CREATE FUNCTION chukan.link_enter(
  _generation bigint, _link text, _centre text, _act text, _who text, _second text, _reason text, _before jsonb
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE chukan.links SET generation = _generation WHERE link = _link;
  INSERT INTO chukan.link_change (link, centre, act, who, second, reason, before, after, generation)
    VALUES (_link, _centre, _act, chukan.link_check_person(_who), _second, _reason, _before, chukan.link_told(_link),
            _generation);
END $$;

-- Makes keys a link's for ever; refuses one that is or was another's.
CREATE FUNCTION chukan.link_claim(_link text, _keys bytea[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  INSERT INTO chukan.link_keys (public_key, link)
    SELECT DISTINCT u.key, _link FROM unnest(_keys) u(key) WHERE u.key IS NOT NULL ORDER BY u.key
    ON CONFLICT (public_key) DO NOTHING;
  IF EXISTS (SELECT FROM chukan.link_keys k WHERE k.public_key = ANY (_keys) AND k.link <> _link)
     OR EXISTS (SELECT FROM chukan.link_gateways g
                WHERE g.public_key = ANY (_keys) OR g.next_public_key = ANY (_keys)
                   OR g.service_public_key = ANY (_keys)) THEN
    PERFORM chukan.link_refuse('link_key_taken');
  END IF;
END $$;

DO $$
DECLARE
  _name text;
BEGIN
  FOREACH _name IN ARRAY ARRAY['link_refuse', 'link_next', 'link_check_person', 'link_check_second', 'link_key_id',
      'link_told', 'link_gateway_told', 'link_take', 'link_enter', 'link_claim'] LOOP
    CALL chukan.entrust(_name, 'chukan_fn', '');
  END LOOP;
END $$;
