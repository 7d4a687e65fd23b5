ALTER TABLE notifications DROP COLUMN baggage, DROP COLUMN occur_time;
