-- Accounts of officers (職員), changes of them by two administrators, and their sessions, in the agency's own schema.
--
-- What an account says (name, rights, password hash, passkeys) is sealed under the agency's key in `body`; clear are the
-- officer's id, which stands in every trace of an act, and what locks an account. Whoever writes rows here without the key
-- can neither make an account nor a session: neither opens. All of it is written through door 1, for one agency.

CREATE TABLE chukan_plain.officers (
  officer         text PRIMARY KEY CHECK (octet_length(officer) BETWEEN 1 AND 64),
  body            bytea NOT NULL,
  version         bigint NOT NULL DEFAULT 1 CHECK (version > 0),
  failures        integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
  locked_until    timestamptz,
  challenge       bytea CHECK (octet_length(challenge) = 32),
  challenge_until timestamptz,
  at              timestamptz NOT NULL DEFAULT now(),
  CHECK ((challenge IS NULL) = (challenge_until IS NULL))
);

-- What one administrator proposed; another one decides. A row is never deleted.
CREATE TABLE chukan_plain.officer_changes (
  id         uuid PRIMARY KEY,
  asked      bytea NOT NULL UNIQUE CHECK (octet_length(asked) = 32),
  content    bytea NOT NULL CHECK (octet_length(content) = 32),
  proposer   text NOT NULL,
  body       bytea NOT NULL,
  state      text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'approved', 'rejected')),
  decided_by text,
  at         timestamptz NOT NULL DEFAULT now(),
  decided_at timestamptz,
  tries      integer NOT NULL DEFAULT 1,
  CHECK (state = 'open' OR (decided_by IS NOT NULL AND decided_at IS NOT NULL)),
  CHECK (state <> 'approved' OR decided_by <> proposer)
);
CREATE INDEX officer_changes_open ON chukan_plain.officer_changes (at) WHERE state = 'open';

-- A session by its keyed digest: what a client holds stands nowhere.
CREATE TABLE chukan_plain.officer_sessions (
  digest  bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
  officer text NOT NULL,
  body    bytea NOT NULL,
  seen_at timestamptz NOT NULL,
  until   timestamptz NOT NULL
);
CREATE INDEX officer_sessions_of ON chukan_plain.officer_sessions (officer, seen_at);

DO $$
DECLARE
  _table name;
BEGIN
  FOREACH _table IN ARRAY ARRAY['officers', 'officer_changes', 'officer_sessions'] LOOP
    EXECUTE format('ALTER TABLE chukan_plain.%I OWNER TO chukan_owner', _table);
    EXECUTE format('ALTER TABLE chukan_plain.%I ALTER body SET STORAGE EXTERNAL', _table);
  END LOOP;
END $$;

SELECT chukan.add_plain_table('officers', 'SELECT, INSERT, UPDATE', 'SELECT');
SELECT chukan.add_plain_table('officer_changes', 'SELECT, INSERT, UPDATE', 'SELECT');
SELECT chukan.add_plain_table('officer_sessions', 'SELECT, INSERT, UPDATE, DELETE', 'SELECT');
