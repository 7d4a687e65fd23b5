CREATE INDEX notifications_kind ON notifications (kind, notification_id);
