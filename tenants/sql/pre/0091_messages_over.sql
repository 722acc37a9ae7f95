-- Beside retention_over (0090): kept messages (電文の証跡, 0078) that are over and still there. They go with their record,
-- so that what is over is what expire_messages would take: older than _first, and their record and line are gone.
CREATE FUNCTION chukan.messages_over(_agency integer, _first date)
RETURNS TABLE (class text, over bigint, oldest timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  PERFORM chukan.check_here(ARRAY[_agency]);
  RETURN QUERY EXECUTE format(
    'SELECT $2, count(*), min(f.at) FROM (
       SELECT m.at FROM %1$I.messages m WHERE m.at < $1 AND CASE WHEN m.line IS NULL
         THEN NOT EXISTS (SELECT FROM %1$I.messages n WHERE n.list = m.id)
         ELSE NOT EXISTS (SELECT FROM %1$I.records r WHERE r.agency = %2$s AND r.id = m.line)
          AND NOT EXISTS (SELECT FROM chukan.inquiry_work w WHERE w.agency = %2$s AND w.id = m.line)
          AND NOT EXISTS (SELECT FROM chukan.provision_work w WHERE w.agency = %2$s AND w.id = m.line)
       END LIMIT 10001) f', chukan.schema_of(_agency), _agency)
    USING _first::timestamp AT TIME ZONE 'Asia/Tokyo', 'messages';
END $$;

CALL chukan.entrust('messages_over', 'chukan_fn', 'chukan_steward');
