-- How many open lines each agency of this cell has (CON-05): counted over at most 200,000 lines a side.
CREATE FUNCTION chukan.agency_backlog() RETURNS TABLE (agency integer, count bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT o.agency, count(*) FROM (
      (SELECT i.agency FROM chukan.inquiry_work i WHERE i.state IN (10, 20, 30, 40) LIMIT 200000)
      UNION ALL
      (SELECT p.agency FROM chukan.provision_work p WHERE p.state IN (40, 50) LIMIT 200000)
    ) o GROUP BY o.agency;
END $$;

CALL chukan.entrust('agency_backlog', 'chukan_fn', 'chukan_broker');
