-- Delegations (委任): each agency's own half, given or taken, proposed by one of its officers and approved by another.
-- body is sealed under the row's id: counterpart, side, affair, days, and who of the officers did what.
CREATE TABLE chukan_plain.delegations (
  id    uuid PRIMARY KEY,
  state text NOT NULL CHECK (state IN ('proposed', 'in_force', 'ended')),
  body  bytea NOT NULL,
  at    timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE chukan_plain.delegations OWNER TO chukan_owner;
ALTER TABLE chukan_plain.delegations ALTER body SET STORAGE EXTERNAL;
DO $$
BEGIN
  PERFORM chukan.add_plain_table('delegations', 'SELECT, INSERT, UPDATE', 'SELECT');
END $$;
