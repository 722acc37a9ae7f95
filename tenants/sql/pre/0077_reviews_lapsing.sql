-- Provisions that wait for officers (自動応答不可) and whose permit ends soon, per agency: what is escalated. At most
-- 100,000 held lines are looked at; more than that is no officers' work any more.
CREATE FUNCTION chukan.reviews_lapsing(_until timestamptz) RETURNS TABLE (agency integer, count bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT w.agency, count(*)
    FROM (SELECT p.agency, p.deadline FROM chukan.provision_work p WHERE p.state = 40 LIMIT 100000) w
    WHERE w.deadline <= _until GROUP BY w.agency ORDER BY w.agency;
END $$;

CALL chukan.entrust('reviews_lapsing', 'chukan_fn', 'chukan_broker');
