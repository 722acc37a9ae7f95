-- Parents, LIST-partitioned by agency: they route INSERTs to the leaves aNNNNN.* and serve for nothing else.
-- Never SELECT, UPDATE, DELETE from or JOIN a parent: that plans and locks every agency's leaf (6.8 ms a row).
-- Sealed columns are ciphertext: EXTERNAL storage spares the attempt to compress them.

CREATE SEQUENCE chukan.events_n;

-- Inquirer: what was asked; person is the agency's own keyed digest.
CREATE TABLE chukan.queries (
  agency  integer NOT NULL,
  id      uuid NOT NULL,
  batch   uuid NOT NULL,
  person  bytea CHECK (octet_length(person) = 32),
  request bytea NOT NULL,
  at      timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (agency, id)
) PARTITION BY LIST (agency);

-- Inquirer: the network's signed permit and reply, kept as evidence.
CREATE TABLE chukan.permits (
  agency integer NOT NULL,
  id     uuid NOT NULL,
  sealed bytea NOT NULL,
  at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (agency, id)
) PARTITION BY LIST (agency);

-- Inquirer: the answer as it came, sealed again under the agency's own key; deleted by purge_results().
CREATE TABLE chukan.answers (
  agency integer NOT NULL,
  id     uuid NOT NULL,
  sealed bytea NOT NULL,
  at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (agency, id)
) PARTITION BY LIST (agency);

-- Provider: what was asked of the agency, and the permit that came with it.
CREATE TABLE chukan.provisions (
  agency integer NOT NULL,
  id     uuid NOT NULL,
  person bytea CHECK (octet_length(person) = 32),
  notice bytea NOT NULL,
  at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (agency, id)
) PARTITION BY LIST (agency);

-- Both sides: the provision record (情報提供等記録). Its id is the line's id, so a line cannot have two; an amendment
-- has an id of its own and names the record that it amends.
CREATE TABLE chukan.records (
  agency     integer NOT NULL,
  id         uuid NOT NULL,
  label      bytea NOT NULL CHECK (octet_length(label) = 32),
  month      date NOT NULL,
  sealed     bytea NOT NULL,
  commitment bytea NOT NULL CHECK (octet_length(commitment) = 32),
  amends     uuid CHECK (amends <> id),
  at         timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (agency, id)
) PARTITION BY LIST (agency);
CREATE INDEX records_by_label ON chukan.records (agency, label, id);
-- For the few that have no place in the log yet: they are among the youngest.
CREATE INDEX records_by_at ON chukan.records USING brin (at) WITH (autosummarize = on);

-- Both sides: every step of every line, in the order in which the steps were written.
CREATE TABLE chukan.events (
  agency     integer NOT NULL,
  n          bigint NOT NULL DEFAULT nextval('chukan.events_n'),
  id         uuid NOT NULL,
  side       smallint NOT NULL,
  from_state smallint,
  to_state   smallint NOT NULL,
  at         timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (agency, n)
) PARTITION BY LIST (agency);

-- Both sides: the exact bytes of a line's next message, sent unchanged until acknowledged. Whether they still have to
-- be sent is a flag of the work row: deleting here at each step would visit every agency's leaf once more.
CREATE TABLE chukan.outbox (
  agency integer NOT NULL,
  id     uuid NOT NULL,
  sealed bytea NOT NULL,
  at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (agency, id)
) PARTITION BY LIST (agency);

-- Both sides: messages taken. A repeat writes (tries): a DO NOTHING would be acknowledged before the first is durable.
CREATE TABLE chukan.inbox (
  agency integer NOT NULL,
  sender text NOT NULL,
  id     uuid NOT NULL,
  tries  integer NOT NULL DEFAULT 1,
  at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (agency, sender, id)
) PARTITION BY LIST (agency);

-- The agency's POSTs: keyed digests of key and body, and what the first one led to.
CREATE TABLE chukan.idempotency (
  agency  integer NOT NULL,
  key     bytea NOT NULL CHECK (octet_length(key) = 32),
  body    bytea NOT NULL CHECK (octet_length(body) = 32),
  outcome uuid NOT NULL,
  tries   integer NOT NULL DEFAULT 1,
  at      timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (agency, key)
) PARTITION BY LIST (agency);

-- Provider: permits are for single use; message is the one that used it, so that its own repeat is told from a replay.
CREATE TABLE chukan.permits_used (
  agency  integer NOT NULL,
  permit  bytea NOT NULL CHECK (octet_length(permit) = 32),
  message uuid NOT NULL,
  until   timestamptz NOT NULL,
  PRIMARY KEY (agency, permit)
) PARTITION BY LIST (agency);

-- The agency's log: leaves of a Merkle tree (RFC 9162), one per record, both sides; written by the sequencer only.
CREATE TABLE chukan.log (
  agency    integer NOT NULL,
  seq       bigint NOT NULL,
  record    uuid NOT NULL,
  label     bytea NOT NULL CHECK (octet_length(label) = 32),
  leaf_data bytea NOT NULL CHECK (octet_length(leaf_data) = 105),
  leaf_hash bytea NOT NULL CHECK (octet_length(leaf_hash) = 32),
  at        timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (agency, seq)
) PARTITION BY LIST (agency);
CREATE INDEX log_by_label ON chukan.log (agency, label, seq);

DO $$
DECLARE
  _table name;
  _column name;
BEGIN
  FOR _table IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'chukan'::regnamespace AND c.relkind = 'p' LOOP
    EXECUTE format('ALTER TABLE chukan.%I OWNER TO chukan_owner', _table);
    EXECUTE format('ALTER TABLE chukan.%I ENABLE ROW LEVEL SECURITY', _table);
    EXECUTE format('ALTER TABLE chukan.%I FORCE ROW LEVEL SECURITY', _table);
    FOR _column IN SELECT a.attname FROM pg_attribute a WHERE a.attrelid = format('chukan.%I', _table)::regclass
                   AND a.attname IN ('request', 'sealed', 'notice') LOOP
      EXECUTE format('ALTER TABLE chukan.%I ALTER %I SET STORAGE EXTERNAL', _table, _column);
    END LOOP;
    EXECUTE format('CREATE POLICY fn ON chukan.%I TO chukan_fn USING (true) WITH CHECK (true)', _table);
    -- SELECT is what RETURNING and ON CONFLICT need; no function reads a parent (a test reads their text).
    EXECUTE format('GRANT SELECT, INSERT ON chukan.%I TO chukan_fn', _table);
  END LOOP;
END $$;
GRANT UPDATE ON chukan.outbox, chukan.inbox, chukan.idempotency, chukan.permits_used TO chukan_fn;
ALTER SEQUENCE chukan.events_n OWNER TO chukan_owner;
GRANT USAGE ON SEQUENCE chukan.events_n TO chukan_fn;
