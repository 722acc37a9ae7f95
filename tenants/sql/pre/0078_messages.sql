-- What each side of a provision received from the network and sent to it (電文の証跡), without content: one row for each
-- list that the network signed, one for each line's part in it. Sealed under the row's id; lists of one batch have an id
-- of their own at every agency, so that no two agencies' rows have a value in common.
CREATE TABLE chukan_plain.messages (
  id     uuid PRIMARY KEY,
  line   uuid,
  list   uuid,
  sealed bytea NOT NULL,
  at     timestamptz NOT NULL DEFAULT now(),
  CHECK (line IS NOT NULL OR list IS NULL)
);
CREATE INDEX messages_by_line ON chukan_plain.messages (line) WHERE line IS NOT NULL;
CREATE INDEX messages_by_list ON chukan_plain.messages (list) WHERE list IS NOT NULL;
CREATE INDEX messages_by_age ON chukan_plain.messages (at);
COMMENT ON COLUMN chukan_plain.messages.line IS 'the record''s id (a line''s, or its amendment''s); NULL: the row is a list';
COMMENT ON COLUMN chukan_plain.messages.list IS 'the row of the list that the message stood in; NULL: it was only sent';
ALTER TABLE chukan_plain.messages OWNER TO chukan_owner;
ALTER TABLE chukan_plain.messages ALTER sealed SET STORAGE EXTERNAL;
SELECT chukan.add_plain_table('messages', 'SELECT', 'SELECT, INSERT, DELETE');
INSERT INTO chukan.sealed_places (relation, sealed, named_by, word, suffix) VALUES ('messages', 'sealed', 'id', 'message', '');

-- Keeps messages in the commit of their effect, for the rows whose word is _on: those that had it; returns the words
-- as they are, so that a statement that calls both runs the other function first. _row counts from 1.
CREATE FUNCTION chukan.keep_messages(
  _words text[], _l_agency integer[], _l_id uuid[], _l_sealed bytea[],
  _row integer[], _on text[], _agency integer[], _id uuid[], _line uuid[], _list uuid[], _sealed bytea[]
) RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _rows record;
BEGIN
  FOR _rows IN
    SELECT u.agency, array_agg(u.id) AS id, array_agg(u.line) AS line, array_agg(u.list) AS list,
           array_agg(u.sealed) AS sealed
    FROM unnest(_row, _on, _agency, _id, _line, _list, _sealed) u(row, word, agency, id, line, list, sealed)
    WHERE _words[u.row] = u.word GROUP BY u.agency ORDER BY u.agency
  LOOP
    EXECUTE format(
      'INSERT INTO %I.messages (id, line, list, sealed)
         SELECT l.id, NULL::uuid, NULL::uuid, l.sealed FROM unnest($5, $6, $7) l(agency, id, sealed)
           WHERE l.agency = $8 AND l.id = ANY ($3)
         UNION ALL SELECT * FROM unnest($1, $2, $3, $4) m
       ON CONFLICT (id) DO NOTHING', chukan.schema_of(_rows.agency))
      USING _rows.id, _rows.line, _rows.list, _rows.sealed, _l_agency, _l_id, _l_sealed, _rows.agency;
  END LOOP;
  RETURN _words;
END $$;

-- Deletes messages whose record is gone, as its seven years are over (0076), at the next _count agencies after _after,
-- at most _limit rows of a kind each; returns the last agency seen, 0 at the end. A list goes after its last message.
CREATE FUNCTION chukan.expire_messages(_after integer, _count integer, _before date, _limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _agency integer;
  _last integer := 0;
  _over timestamptz := least(_before, chukan.kept_from())::timestamp AT TIME ZONE 'Asia/Tokyo';
BEGIN
  FOR _agency IN SELECT a.agency FROM chukan.agencies a WHERE a.agency > _after AND a.state = 'open'
                 ORDER BY a.agency LIMIT _count LOOP
    EXECUTE format(
      'DELETE FROM %1$I.messages d WHERE d.id = ANY (ARRAY(
         SELECT m.id FROM %1$I.messages m WHERE m.at < $1 AND m.line IS NOT NULL
           AND NOT EXISTS (SELECT FROM %1$I.records r WHERE r.agency = %2$s AND r.id = m.line)
           AND NOT EXISTS (SELECT FROM chukan.inquiry_work w WHERE w.agency = %2$s AND w.id = m.line)
           AND NOT EXISTS (SELECT FROM chukan.provision_work w WHERE w.agency = %2$s AND w.id = m.line)
         ORDER BY m.at LIMIT %3$s))', chukan.schema_of(_agency), _agency, _limit) USING _over;
    EXECUTE format(
      'DELETE FROM %1$I.messages d WHERE d.id = ANY (ARRAY(
         SELECT l.id FROM %1$I.messages l WHERE l.at < $1 AND l.line IS NULL
           AND NOT EXISTS (SELECT FROM %1$I.messages m WHERE m.list = l.id)
         ORDER BY l.at LIMIT %2$s))', chukan.schema_of(_agency), _limit) USING _over;
    _last := _agency;
  END LOOP;
  RETURN _last;
END $$;

CALL chukan.entrust('keep_messages', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('expire_messages', 'chukan_fn', 'chukan_broker');
