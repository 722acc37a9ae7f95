-- The cell's own tables: unpartitioned, owned by chukan_fn, reached only by its functions. They say that there is work
-- and whose, never what about: no counterpart, kind, code, person or foreign id.

-- The shard of an agency is states.shard_of(); it is generated here so that a row can never stand in a wrong one.
CREATE TABLE chukan.agencies (
  agency       integer PRIMARY KEY CHECK (agency BETWEEN 1 AND 99999),
  generation   integer NOT NULL CHECK (generation > 0),
  hold_version bigint NOT NULL DEFAULT 0,
  state        text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closed')),
  shard        smallint GENERATED ALWAYS AS ((((agency::bigint * 2654435761) >> 16) % 64)::smallint) STORED,
  at           timestamptz NOT NULL DEFAULT now(),
  UNIQUE (agency, generation)  -- makes the generation part of the key: raising it waits for every set that holds it
);

CREATE TABLE chukan.inquiry_work (
  agency     integer NOT NULL,
  id         uuid NOT NULL,
  batch      uuid NOT NULL,
  ordinal    integer NOT NULL,
  shard      smallint GENERATED ALWAYS AS ((((agency::bigint * 2654435761) >> 16) % 64)::smallint) STORED,
  state      smallint NOT NULL,
  outcome    smallint NOT NULL,
  reason     text,
  outbox     boolean NOT NULL,
  due        timestamptz NOT NULL,
  deadline   timestamptz NOT NULL,
  tries      integer NOT NULL DEFAULT 0,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (agency, id)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX inquiry_due ON chukan.inquiry_work (shard, due) WHERE state IN (10, 20, 30, 40);
CREATE INDEX inquiry_done ON chukan.inquiry_work (shard, updated_at) WHERE state >= 50;
CREATE INDEX inquiry_batch ON chukan.inquiry_work (agency, batch);
CREATE INDEX inquiry_state ON chukan.inquiry_work (agency, state, id);

CREATE TABLE chukan.provision_work (
  agency     integer NOT NULL,
  id         uuid NOT NULL,
  shard      smallint GENERATED ALWAYS AS ((((agency::bigint * 2654435761) >> 16) % 64)::smallint) STORED,
  state      smallint NOT NULL,
  outcome    smallint NOT NULL,
  reason     text,
  outbox     boolean NOT NULL,
  due        timestamptz NOT NULL,
  deadline   timestamptz NOT NULL,
  tries      integer NOT NULL DEFAULT 0,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (agency, id)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX provision_due ON chukan.provision_work (shard, due) WHERE state IN (40, 50);
CREATE INDEX provision_done ON chukan.provision_work (shard, updated_at) WHERE state >= 70;
CREATE INDEX provision_held ON chukan.provision_work (agency, id) WHERE state = 40;

-- Records that have no position in their agency's log yet.
CREATE TABLE chukan.to_sequence (
  n      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  agency integer NOT NULL,
  record uuid NOT NULL,
  at     timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);

CREATE TABLE chukan.log_heads (
  agency integer PRIMARY KEY,
  seq    bigint NOT NULL
) WITH (fillfactor = 50);

-- One row per side and shard, there from the start: a worker takes rows, it never makes them. The epoch rises whenever
-- the owner changes. It is the key that stage functions hold FOR KEY SHARE, so a takeover waits for them and a renewal
-- (which changes only until) does not.
CREATE TABLE chukan.leases (
  side  smallint NOT NULL,
  shard smallint NOT NULL,
  epoch bigint NOT NULL DEFAULT 0,
  owner text,
  until timestamptz NOT NULL DEFAULT '-infinity',
  PRIMARY KEY (side, shard),
  UNIQUE (side, shard, epoch)
) WITH (fillfactor = 30);
INSERT INTO chukan.leases (side, shard) 
  SELECT side, shard FROM generate_series(1, 2) side, generate_series(0, 63) shard;

-- Who is alive, so that the workers of a side share its shards fairly.
CREATE TABLE chukan.workers (
  side  smallint NOT NULL,
  owner text NOT NULL,
  until timestamptz NOT NULL,
  PRIMARY KEY (side, owner)
) WITH (fillfactor = 50);

-- Common data: numbered, signed snapshots; cell.snapshot names the one in force.
CREATE TABLE chukan.snapshot (
  number    bigint PRIMARY KEY CHECK (number > 0),
  body      bytea NOT NULL,
  signature bytea NOT NULL,
  key       text NOT NULL,
  at        timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE chukan.cell (
  one      boolean PRIMARY KEY DEFAULT true CHECK (one),
  name     text NOT NULL DEFAULT '',
  snapshot bigint NOT NULL DEFAULT 0
);
INSERT INTO chukan.cell DEFAULT VALUES;

CREATE TABLE chukan.canary (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
INSERT INTO chukan.canary DEFAULT VALUES;

DO $$
DECLARE
  _table name;
BEGIN
  FOREACH _table IN ARRAY ARRAY['agencies', 'inquiry_work', 'provision_work', 'to_sequence', 'log_heads', 'leases',
                                'workers', 'snapshot', 'cell', 'canary'] LOOP
    EXECUTE format('ALTER TABLE chukan.%I OWNER TO chukan_fn', _table);
  END LOOP;
END $$;
