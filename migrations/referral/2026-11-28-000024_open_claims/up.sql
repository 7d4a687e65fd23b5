-- What a sale costs most is indexes: an earner has one commission a sale, so that its ledger transaction tells the order. By
-- itself, since it takes its time: the next migration drops the wider one.
CREATE INDEX commissions_open_by_sale ON commissions (earner_id, transaction_id)
    WHERE state = 'AVAILABLE' AND amount - reversed - reserved - paid <> 0;
