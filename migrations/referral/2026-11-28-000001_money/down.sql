DO $$ BEGIN
    RAISE EXCEPTION 'there is no way back from here: the older schema has no place for refunds, payouts and adjustments';
END $$;
