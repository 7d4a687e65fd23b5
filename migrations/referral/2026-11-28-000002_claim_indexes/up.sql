-- What a partner owes, apart from the much more that one can claim: a payout looks for the oldest of both.
CREATE INDEX commissions_owed ON commissions (earner_id, transaction_id, payment_id, level)
    WHERE state = 'AVAILABLE' AND amount - reversed - reserved - paid < 0;
-- What a release made available; commissions that were never held cost nothing here.
CREATE INDEX commissions_by_release ON commissions (release_transaction_id) WHERE release_transaction_id IS NOT NULL;
