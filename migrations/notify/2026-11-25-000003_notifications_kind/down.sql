DROP INDEX notifications_kind;
