DROP INDEX outbox_rejected;
