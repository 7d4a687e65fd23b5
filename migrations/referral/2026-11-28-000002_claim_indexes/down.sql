DROP INDEX commissions_by_release;
DROP INDEX commissions_owed;
