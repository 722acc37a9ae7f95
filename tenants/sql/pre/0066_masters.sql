-- Master data (配信マスター: 照合リスト, 機関一覧, レイアウト, 運用カレンダー) as versions. A version is its bytes under their
-- digest, what its proposer signed, and what another person signed who approved it. Which one is in force is not said
-- here: the common data in force names it by its digest, so that it changes with that, in every cell at one instant.
--
-- A version never changes and never goes: a past act can be judged by the master of its day. What was done with versions
-- (proposed, approved, rejected, withdrawn) are rows that nobody changes, the functions' owner neither.

CREATE TABLE chukan.master (
  digest    bytea PRIMARY KEY CHECK (length(digest) = 32),
  version   integer NOT NULL UNIQUE CHECK (version BETWEEN 1 AND 999999),
  body      bytea NOT NULL CHECK (length(body) <= 8388608),
  proposal  bytea NOT NULL CHECK (length(proposal) <= 65536),
  approval  bytea CHECK (length(approval) <= 65536),
  at        timestamptz NOT NULL DEFAULT now(),
  tries     integer NOT NULL DEFAULT 1
);
ALTER TABLE chukan.master OWNER TO chukan_fn;
REVOKE UPDATE, DELETE, TRUNCATE ON chukan.master FROM chukan_fn;
GRANT UPDATE (approval, tries) ON chukan.master TO chukan_fn;
COMMENT ON TABLE chukan.master IS 'versions of the master data: canonical bytes (compressed), and two persons'' signatures';

CREATE TABLE chukan.master_act (
  id      uuid PRIMARY KEY,
  version integer NOT NULL REFERENCES chukan.master (version),
  act     text NOT NULL CHECK (act IN ('propose', 'approve', 'reject', 'withdraw')),
  by      text NOT NULL CHECK (length(by) BETWEEN 1 AND 64),
  reason  text NOT NULL CHECK (length(reason) <= 500),
  at      timestamptz NOT NULL,
  tries   integer NOT NULL DEFAULT 1
);
CREATE INDEX master_act_version ON chukan.master_act (version);
ALTER TABLE chukan.master_act OWNER TO chukan_fn;
REVOKE UPDATE, DELETE, TRUNCATE ON chukan.master_act FROM chukan_fn;
GRANT UPDATE (tries) ON chukan.master_act TO chukan_fn;
COMMENT ON TABLE chukan.master_act IS 'who did what with a version of the master data; append-only';

-- Puts a version into this cell, or its approval to one that is here. An approval stays what it first was. CK003 (or, of
-- two at the same moment, a key that is there twice) where the number is another version's.
CREATE FUNCTION chukan.master_put(
  _digest bytea, _version integer, _body bytea, _proposal bytea, _approval bytea
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _same boolean;
BEGIN
  IF sha256(_body) <> _digest THEN
    PERFORM chukan.defect('a master under another digest');
  END IF;
  IF EXISTS (SELECT FROM chukan.master m WHERE m.version = _version AND m.digest <> _digest) THEN
    PERFORM chukan.defect('a master of this number is here');
  END IF;
  INSERT INTO chukan.master AS m (digest, version, body, proposal, approval)
    VALUES (_digest, _version, _body, _proposal, _approval)
    ON CONFLICT (digest) DO UPDATE SET approval = coalesce(m.approval, excluded.approval), tries = m.tries + 1
    RETURNING (m.version, m.proposal) = (_version, _proposal) INTO _same;
  IF NOT _same THEN
    PERFORM chukan.defect('this master is here with another proposal');
  END IF;
  RETURN true;
END $$;

-- Enters what somebody did with a version; known by an id that the caller made, so that it may be repeated.
CREATE FUNCTION chukan.master_enter(
  _id uuid, _version integer, _act text, _by text, _reason text, _at timestamptz
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO chukan.master_act AS a (id, version, act, by, reason, at) VALUES (_id, _version, _act, _by, _reason, _at)
    ON CONFLICT (id) DO UPDATE SET tries = a.tries + 1;
  RETURN true;
END $$;

-- One version, with its bytes.
CREATE FUNCTION chukan.master_get(_digest bytea)
RETURNS TABLE (version integer, body bytea, proposal bytea, approval bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT m.version, m.body, m.proposal, m.approval FROM chukan.master m WHERE m.digest = _digest;
END $$;

-- The versions without their bytes, the newest first.
CREATE FUNCTION chukan.master_versions(_limit integer)
RETURNS TABLE (digest bytea, version integer, proposal bytea, approval bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT m.digest, m.version, m.proposal, m.approval FROM chukan.master m
    ORDER BY m.version DESC LIMIT least(_limit, 1000);
END $$;

-- What was done with the versions, the oldest first.
CREATE FUNCTION chukan.master_acts(_limit integer)
RETURNS TABLE (version integer, act text, by text, reason text, at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT a.version, a.act, a.by, a.reason, a.at FROM
    (SELECT * FROM chukan.master_act ORDER BY at DESC, id DESC LIMIT least(_limit, 10000)) a ORDER BY a.at, a.id;
END $$;

CALL chukan.entrust('master_put', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('master_enter', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('master_get', 'chukan_fn', 'chukan_broker', 'chukan_steward');
CALL chukan.entrust('master_versions', 'chukan_fn', 'chukan_steward');
CALL chukan.entrust('master_acts', 'chukan_fn', 'chukan_steward');
