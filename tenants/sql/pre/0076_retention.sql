-- Records (情報提供等記録) rest seven years (番号法施行令30条): before, nothing deletes or changes one; after, they are
-- deleted by themselves, and with them what the line left in other tables. A leaf of the log stays for ever: it holds
-- neither person nor content, and the tree needs it.

-- What was deleted and when: the report of an agency's retention. Months and counts stood in the statistics already.
CREATE TABLE chukan.expired (
  agency integer NOT NULL,
  month  date NOT NULL,
  count  bigint NOT NULL CHECK (count > 0),
  at     timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN chukan.expired.month IS 'the month (JST) that the deleted records named';
CREATE INDEX expired_by_agency ON chukan.expired (agency, at);
ALTER TABLE chukan.expired OWNER TO chukan_owner;
GRANT SELECT, INSERT ON chukan.expired TO chukan_fn;

-- The end of the last month (first day, JST) of which every record is older than seven years, by this server's clock.
CREATE FUNCTION chukan.kept_from() RETURNS date
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (date_trunc('month', now() AT TIME ZONE 'Asia/Tokyo') - interval '7 years')::date;
END $$;

-- Nobody's right and no function's mistake gets past this; re-encryption may replace the sealed bytes, for what they
-- say is held by the commitment.
CREATE FUNCTION chukan.keep_record() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    IF (NEW.agency, NEW.id, NEW.label, NEW.month, NEW.commitment, NEW.amends, NEW.at)
        IS DISTINCT FROM (OLD.agency, OLD.id, OLD.label, OLD.month, OLD.commitment, OLD.amends, OLD.at) THEN
      RAISE EXCEPTION 'a provision record is never changed' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
  END IF;
  IF OLD.month >= chukan.kept_from() OR OLD.at > now() - interval '7 years' THEN
    RAISE EXCEPTION 'a provision record is kept for seven years' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN OLD;
END $$;
CREATE TRIGGER keep_record BEFORE UPDATE OR DELETE ON chukan.records
  FOR EACH ROW EXECUTE FUNCTION chukan.keep_record();

-- Deletes what is over at the next _count agencies after _after, at most _limit rows of a table each; returns the last
-- agency seen, 0 at the end. _before is the first day of the first month that is kept by the caller's clock: nothing
-- that this server's clock would keep is touched, whatever it says. A record goes after what amends it, so that what
-- was withheld by either is never seen alone.
CREATE FUNCTION chukan.expire_records(_after integer, _count integer, _before date, _limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _agency integer;
  _last integer := 0;
  _first date := least(_before, chukan.kept_from());
  _over timestamptz := least(_before, chukan.kept_from())::timestamp AT TIME ZONE 'Asia/Tokyo';
  _schema text;
  _rule record;
  _oldest timestamptz;
BEGIN
  FOR _agency IN SELECT a.agency FROM chukan.agencies a WHERE a.agency > _after AND a.state = 'open'
                 ORDER BY a.agency LIMIT _count LOOP
    _schema := chukan.schema_of(_agency);
    EXECUTE format(
      'WITH gone AS (
         DELETE FROM %1$I.records d WHERE d.ctid = ANY (ARRAY(
           SELECT r.ctid FROM %1$I.records r WHERE r.at < $2 AND r.month < $1
             AND NOT EXISTS (SELECT FROM %1$I.records a WHERE a.agency = %2$s AND a.label = r.label AND a.amends = r.id)
             LIMIT %3$s))
         RETURNING d.month
       )
       INSERT INTO chukan.expired (agency, month, count) SELECT %2$s, g.month, count(*) FROM gone g GROUP BY g.month',
      _schema, _agency, _limit) USING _first, _over;
    FOR _rule IN SELECT * FROM (VALUES
      ('queries', 'id'), ('provisions', 'id'), ('permits', 'id'), ('events', 'n')) r(name, key) LOOP
      -- Keys rise with time: where the first row is not over, none is, and no other is read.
      EXECUTE format('SELECT o.at FROM %I.%I o ORDER BY o.%I LIMIT 1', _schema, _rule.name, _rule.key) INTO _oldest;
      CONTINUE WHEN _oldest IS NULL OR _oldest >= _over;
      EXECUTE format(
        'DELETE FROM %1$I.%2$I d WHERE d.ctid = ANY (ARRAY(
           SELECT k.ctid FROM (SELECT o.ctid, o.id, o.at, o.agency FROM %1$I.%2$I o ORDER BY o.%5$I LIMIT %4$s) k
           WHERE k.at < $1
             AND NOT EXISTS (SELECT FROM %1$I.records r WHERE r.agency = %3$s AND r.id = k.id)
             AND NOT EXISTS (SELECT FROM chukan.inquiry_work w WHERE w.agency = k.agency AND w.id = k.id)
             AND NOT EXISTS (SELECT FROM chukan.provision_work w WHERE w.agency = k.agency AND w.id = k.id)))',
        _schema, _rule.name, _agency, _limit, _rule.key) USING _over;
    END LOOP;
    _last := _agency;
  END LOOP;
  RETURN _last;
END $$;

-- What was deleted of an agency (0: of all), newest first.
CREATE FUNCTION chukan.expired_records(_agency integer, _limit integer)
RETURNS TABLE (agency integer, month date, count bigint, at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT e.agency, e.month, sum(e.count)::bigint, max(e.at) FROM chukan.expired e
    WHERE _agency = 0 OR e.agency = _agency
    GROUP BY e.agency, e.month ORDER BY max(e.at) DESC, e.agency, e.month LIMIT _limit;
END $$;

CALL chukan.entrust('kept_from', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('keep_record', 'chukan_fn', 'chukan_owner');
CALL chukan.entrust('expire_records', 'chukan_fn', 'chukan_broker');
CALL chukan.entrust('expired_records', 'chukan_fn', 'chukan_broker');

INSERT INTO chukan.agency_tables (name, agency_rights, fn_rights)
SELECT t.name, 'SELECT', 'SELECT, DELETE' FROM unnest(ARRAY['records', 'queries', 'provisions', 'permits', 'events']) t(name);
DO $$
DECLARE
  _schema name;
  _table name;
BEGIN
  FOR _schema IN SELECT n.nspname FROM pg_namespace n WHERE n.nspname ~ '^a[0-9]{5}$' LOOP
    FOREACH _table IN ARRAY ARRAY['records', 'queries', 'provisions', 'permits', 'events'] LOOP
      IF to_regclass(format('%I.%I', _schema, _table)) IS NOT NULL THEN
        EXECUTE format('GRANT SELECT, DELETE ON %I.%I TO chukan_fn', _schema, _table);
      END IF;
    END LOOP;
  END LOOP;
END $$;
