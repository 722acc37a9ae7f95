-- What an agency keeps from the person's own query by a portal (自己情報提供不可フラグ): everything of a person, a kind of
-- everybody, a kind of a person, or single copies of these by period and first day. A flag outlives the copies that it
-- is about: whoever registers them again lifts nothing. As holds, a change raises hold_version.
CREATE TABLE chukan_plain.own_information_flags (
  person         bytea CHECK (octet_length(person) = 32),
  kind           text,
  period         text,
  effective_from date,
  at             timestamptz NOT NULL DEFAULT now(),
  CHECK (person IS NOT NULL OR kind IS NOT NULL),
  CHECK ((period IS NULL AND effective_from IS NULL) OR (person IS NOT NULL AND kind IS NOT NULL))
);
CREATE UNIQUE INDEX own_information_flags_key
  ON chukan_plain.own_information_flags (person, kind, period, effective_from) NULLS NOT DISTINCT;
CREATE INDEX own_information_flags_kind ON chukan_plain.own_information_flags (kind) WHERE person IS NULL;
ALTER TABLE chukan_plain.own_information_flags OWNER TO chukan_owner;
DO $$
BEGIN
  PERFORM chukan.add_plain_table('own_information_flags', 'SELECT, INSERT, UPDATE, DELETE', 'SELECT');
END $$;
