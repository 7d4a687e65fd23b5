DROP FUNCTION grant_service_rights(name);
DROP TABLE attempts, deliveries, notifications, rejected_records, inbox;
