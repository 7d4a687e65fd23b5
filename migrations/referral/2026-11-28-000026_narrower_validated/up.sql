-- The constraint holds for what is new; this looks at what was there, while others read and write.
ALTER TABLE commissions VALIDATE CONSTRAINT commissions_amount;
