-- Changes of links by officers (付替・統合・疑義): one proposes, another one confirms. What is proposed suspends the links
-- that it touches at once, so that they answer nothing; what is confirmed moves the code. The rows are the history: they
-- are decided once and never deleted. Persons are the agency's own keyed digests, as in codes.

CREATE TABLE chukan_plain.code_changes (
  id               uuid PRIMARY KEY,
  act              text NOT NULL CHECK (act IN ('relink', 'merge', 'doubt', 'reinstate')),
  person           bytea NOT NULL CHECK (octet_length(person) = 32),
  target           bytea CHECK (octet_length(target) = 32 AND target <> person),
  state            text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'applied', 'withdrawn')),
  body             bytea NOT NULL CHECK (octet_length(body) = 32),
  detail           bytea NOT NULL,
  target_addressee bytea,
  person_was       smallint NOT NULL,
  person_version   bigint NOT NULL,
  target_was       smallint,
  target_version   bigint,
  code_digest      bytea,
  proposed_by      text NOT NULL,
  proposed_at      timestamptz NOT NULL DEFAULT now(),
  decided_by       text,
  decided_at       timestamptz,
  tries            integer NOT NULL DEFAULT 1,
  CHECK ((act IN ('relink', 'merge')) = (target IS NOT NULL)),
  CHECK ((target IS NULL) = (target_addressee IS NULL)),
  CHECK ((target_was IS NULL) = (target_version IS NULL)),
  CHECK ((state = 'open') = (decided_by IS NULL)),
  CHECK (decided_by <> proposed_by)
);
CREATE INDEX code_changes_open ON chukan_plain.code_changes (id) WHERE state = 'open';
CREATE INDEX code_changes_person ON chukan_plain.code_changes (person);
CREATE INDEX code_changes_target ON chukan_plain.code_changes (target) WHERE target IS NOT NULL;
ALTER TABLE chukan_plain.code_changes OWNER TO chukan_owner;
ALTER TABLE chukan_plain.code_changes ALTER detail SET STORAGE EXTERNAL, ALTER target_addressee SET STORAGE EXTERNAL;
COMMENT ON COLUMN chukan_plain.code_changes.person_version IS 'of the link once it is suspended: a change confirmed is on what was seen';
SELECT chukan.add_plain_table('code_changes', 'SELECT', 'SELECT, INSERT, UPDATE');

-- Suspends a link that is active; returns its version then. Links in any other state answer nothing already.
CREATE FUNCTION chukan.suspend_link(_schema text, _person bytea) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _version bigint;
BEGIN
  EXECUTE format('UPDATE %I.codes c SET status = CASE WHEN c.status = 2 THEN 3 ELSE c.status END,
                         version = c.version + 1, at = now()
                  WHERE c.person = $1 RETURNING c.version', _schema) INTO _version USING _person;
  RETURN _version;
END $$;

-- Proposals of one agency, line by line: 'open', 'repeat', 'reused' (the id with another body), 'no_link' (there is
-- nothing to change), 'pending' (another open change touches one of the two), 'conflict' (a merge of two codes, or the
-- reinstatement of a link that is not suspended).
CREATE FUNCTION chukan.propose_changes(
  _agency integer, _generation integer, _officer text,
  _id uuid[], _act text[], _person bytea[], _target bytea[], _body bytea[], _detail bytea[], _target_addressee bytea[]
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _schema text := chukan.schema_of(_agency);
  _line record;
  _old bytea;
  _p record;
  _t record;
  _pending boolean;
  _count bigint;
BEGIN
  PERFORM chukan.check_generation(ARRAY[_agency], ARRAY[_generation]);
  EXECUTE format('SELECT count(*) FROM (SELECT 1 FROM %I.codes c WHERE c.person = ANY ($1)
                  ORDER BY c.person FOR NO KEY UPDATE) l', _schema) INTO _count USING _person || _target;
  FOR _line IN SELECT * FROM unnest(_id, _act, _person, _target, _body, _detail, _target_addressee) WITH ORDINALITY
                      u(id, act, person, target, body, detail, target_addressee, n) ORDER BY u.n LOOP
    EXECUTE format('UPDATE %I.code_changes h SET tries = h.tries + 1 WHERE h.id = $1 RETURNING h.body', _schema)
      INTO _old USING _line.id;
    IF _old IS NOT NULL THEN
      RETURN NEXT CASE WHEN _old = _line.body THEN 'repeat' ELSE 'reused' END;
      CONTINUE;
    END IF;
    EXECUTE format('SELECT c.status, c.code_digest FROM %I.codes c WHERE c.person = $1', _schema)
      INTO _p USING _line.person;
    EXECUTE format('SELECT c.status, c.code_digest FROM %I.codes c WHERE c.person = $1', _schema)
      INTO _t USING _line.target;
    EXECUTE format('SELECT EXISTS (SELECT FROM %I.code_changes h WHERE h.state = ''open''
                    AND (h.person IN ($1, $2) OR h.target IN ($1, $2)))', _schema)
      INTO _pending USING _line.person, coalesce(_line.target, _line.person);
    IF _p.status IS NULL OR _p.status = 4 OR _t.status = 4
       OR (_line.act <> 'merge' AND _p.code_digest IS NULL) THEN
      RETURN NEXT 'no_link';
    ELSIF _pending THEN
      RETURN NEXT 'pending';
    ELSIF _line.act = 'merge' AND _p.code_digest IS NOT NULL AND _t.code_digest IS NOT NULL
          OR _line.act = 'reinstate' AND _p.status <> 3 THEN
      RETURN NEXT 'conflict';
    ELSE
      EXECUTE format(
        'INSERT INTO %I.code_changes (id, act, person, target, body, detail, target_addressee, person_was,
           person_version, target_was, target_version, code_digest, proposed_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)', _schema)
        USING _line.id, _line.act, _line.person, _line.target, _line.body, _line.detail, _line.target_addressee,
              _p.status, chukan.suspend_link(_schema, _line.person),
              _t.status, CASE WHEN _t.status IS NOT NULL THEN chukan.suspend_link(_schema, _line.target) END,
              _p.code_digest, _officer;
      RETURN NEXT 'open';
    END IF;
  END LOOP;
  PERFORM chukan.fence(true);
END $$;

-- Gives a code to a person: the link is active then, and whatever acquisition was open for it has ended.
CREATE FUNCTION chukan.give_code(_schema text, _person bytea, _addressee bytea, _digest bytea, _code bytea)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format(
    'INSERT INTO %I.codes AS c (person, status, addressee, code_digest, code) VALUES ($1, 2, $2, $3, $4)
     ON CONFLICT (person) DO UPDATE SET status = 2, version = c.version + 1, code_digest = excluded.code_digest,
       code = excluded.code, request = NULL, number = NULL, number_digest = NULL, at = now()', _schema)
    USING _person, _addressee, _digest, _code;
END $$;

-- Takes a code away; the link stands as it is told, ready for another acquisition where it gets a request.
CREATE FUNCTION chukan.take_code(_schema text, _person bytea, _status smallint, _request uuid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format(
    'UPDATE %I.codes c SET status = $2, version = c.version + 1, code_digest = NULL, code = NULL, request = $3,
       number = NULL, number_digest = NULL, at = now() WHERE c.person = $1', _schema) USING _person, _status, _request;
END $$;

-- Carries out one confirmed change; the links are locked and as they were when it was proposed.
CREATE FUNCTION chukan.apply_change(
  _schema text, _act text, _person bytea, _target bytea, _target_addressee bytea, _request uuid
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _p record;
  _t record;
BEGIN
  EXECUTE format('SELECT c.addressee, c.code_digest, c.code FROM %I.codes c WHERE c.person = $1', _schema)
    INTO _p USING _person;
  EXECUTE format('SELECT c.addressee, c.code_digest, c.code, c.status FROM %I.codes c WHERE c.person = $1', _schema)
    INTO _t USING _target;
  IF _act = 'relink' THEN
    -- Both lose theirs first, for a code stands once only. Where the target had one, the two were mixed up: they swap.
    PERFORM chukan.take_code(_schema, _person, 1::smallint, _request);
    IF _t.code IS NOT NULL THEN
      PERFORM chukan.take_code(_schema, _target, 1::smallint, NULL);
      PERFORM chukan.give_code(_schema, _person, _p.addressee, _t.code_digest, _t.code);
    END IF;
    PERFORM chukan.give_code(_schema, _target, _target_addressee, _p.code_digest, _p.code);
  ELSIF _act = 'merge' THEN
    PERFORM chukan.take_code(_schema, _person, 4::smallint, NULL);
    IF _p.code IS NOT NULL OR _t.code IS NOT NULL THEN
      PERFORM chukan.give_code(_schema, _target, _target_addressee, coalesce(_p.code_digest, _t.code_digest),
                               coalesce(_p.code, _t.code));
    END IF;
  ELSE
    -- A doubt that is confirmed leaves the link suspended; a reinstatement ends the suspension.
    EXECUTE format('UPDATE %I.codes c SET status = $2, version = c.version + 1, at = now() WHERE c.person = $1', _schema)
      USING _person, CASE WHEN _act = 'reinstate' THEN 2 ELSE 3 END::smallint;
  END IF;
END $$;

-- Decisions of another officer, line by line: 'applied', 'withdrawn'; 'late' (decided otherwise before), 'same_officer',
-- 'not_found', 'changed' (a link is not any more as it was proposed on: it can only be withdrawn). Who decides the same
-- again gets the same word.
CREATE FUNCTION chukan.decide_changes(
  _agency integer, _generation integer, _officer text, _id uuid[], _apply boolean[], _request uuid[]
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _schema text := chukan.schema_of(_agency);
  _line record;
  _h record;
  _same boolean;
  _count bigint;
  _word text;
BEGIN
  PERFORM chukan.check_generation(ARRAY[_agency], ARRAY[_generation]);
  EXECUTE format('SELECT count(*) FROM (SELECT 1 FROM %1$I.codes c WHERE c.person IN (
                    SELECT p FROM %1$I.code_changes h, unnest(ARRAY[h.person, h.target]) p WHERE h.id = ANY ($1))
                  ORDER BY c.person FOR UPDATE) l', _schema) INTO _count USING _id;
  FOR _line IN SELECT * FROM unnest(_id, _apply, _request) WITH ORDINALITY u(id, apply, request, n) ORDER BY u.n LOOP
    EXECUTE format('SELECT h.* FROM %I.code_changes h WHERE h.id = $1 FOR UPDATE', _schema) INTO _h USING _line.id;
    _word := CASE WHEN _line.apply THEN 'applied' ELSE 'withdrawn' END;
    IF _h.id IS NULL THEN
      RETURN NEXT 'not_found';
    ELSIF _h.state <> 'open' THEN
      RETURN NEXT CASE WHEN _h.state = _word AND _h.decided_by = _officer THEN _word ELSE 'late' END;
    ELSIF _h.proposed_by = _officer THEN
      RETURN NEXT 'same_officer';
    ELSE
      EXECUTE format(
        'SELECT (SELECT c.version FROM %1$I.codes c WHERE c.person = $1) IS NOT DISTINCT FROM $3
            AND (SELECT c.version FROM %1$I.codes c WHERE c.person = $2) IS NOT DISTINCT FROM $4', _schema)
        INTO _same USING _h.person, _h.target, _h.person_version, _h.target_version;
      IF _line.apply AND NOT _same THEN
        RETURN NEXT 'changed';
        CONTINUE;
      END IF;
      EXECUTE format('UPDATE %I.code_changes h SET state = $2, decided_by = $3, decided_at = now() WHERE h.id = $1',
                     _schema) USING _line.id, _word, _officer;
      IF _line.apply THEN
        PERFORM chukan.apply_change(_schema, _h.act, _h.person, _h.target, _h.target_addressee, _line.request);
      ELSE
        -- Back to what was, unless something else has become of it meanwhile.
        EXECUTE format('UPDATE %I.codes c SET status = w.status, version = c.version + 1, at = now()
                        FROM (VALUES ($1::bytea, $2::smallint, $3::bigint), ($4, $5, $6)) w(person, status, version)
                        WHERE c.person = w.person AND c.version = w.version', _schema)
          USING _h.person, _h.person_was, _h.person_version, _h.target, _h.target_was, _h.target_version;
      END IF;
      RETURN NEXT _word;
    END IF;
  END LOOP;
  PERFORM chukan.fence(true);
END $$;

-- Lines of an inquirer that are under way for some of its persons: what they asked by a link that is suspended now.
CREATE FUNCTION chukan.open_lines(_agency integer, _person bytea[], _limit integer)
RETURNS TABLE (id uuid, state smallint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY EXECUTE format(
    'SELECT w.id, w.state FROM chukan.inquiry_work w JOIN %1$I.queries q ON q.agency = %2$s AND q.id = w.id
     WHERE w.agency = %2$s AND w.state IN (10, 20, 30, 40) AND q.person = ANY ($1) ORDER BY w.id LIMIT $2',
    chukan.schema_of(_agency), _agency) USING _person, _limit;
END $$;

CALL chukan.entrust('suspend_link', 'chukan_fn', '');
CALL chukan.entrust('give_code', 'chukan_fn', '');
CALL chukan.entrust('take_code', 'chukan_fn', '');
CALL chukan.entrust('apply_change', 'chukan_fn', '');
CALL chukan.entrust('propose_changes', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('decide_changes', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('open_lines', 'chukan_fn', 'chukan_broker');
