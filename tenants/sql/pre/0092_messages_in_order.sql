-- keep_messages() (0078) takes lists and messages of an agency in the order of their ids: two commits that keep the same
-- lists wait for one another in one direction only, however their callers order them.
CREATE OR REPLACE FUNCTION chukan.keep_messages(
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
         SELECT n.id, n.line, n.list, n.sealed FROM (
           SELECT l.id, NULL::uuid AS line, NULL::uuid AS list, l.sealed FROM unnest($5, $6, $7) l(agency, id, sealed)
             WHERE l.agency = $8 AND l.id = ANY ($3)
           UNION ALL SELECT m.id, m.line, m.list, m.sealed FROM unnest($1, $2, $3, $4) m(id, line, list, sealed)) n
         ORDER BY n.line IS NOT NULL, n.id
       ON CONFLICT (id) DO NOTHING', chukan.schema_of(_rows.agency))
      USING _rows.id, _rows.line, _rows.list, _rows.sealed, _l_agency, _l_id, _l_sealed, _rows.agency;
  END LOOP;
  RETURN _words;
END $$;
