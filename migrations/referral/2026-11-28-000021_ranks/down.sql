DROP TRIGGER standings_inserted ON standings;
DROP TRIGGER standings_updated ON standings;
DROP FUNCTION recount_xp;
DROP FUNCTION standings_counted;
DROP FUNCTION xp_counts_of;
DROP TABLE xp_counts;
