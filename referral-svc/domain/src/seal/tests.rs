//! Whatever changes in a record changes its hash; what only stands elsewhere doesn't pass for it either.

use proptest::prelude::*;

use super::*;
use crate::{
    money::Asset,
    posting::{AccountKey, Purpose},
};

/// A record whose texts and options say little by themselves.
type Columns = ((u128, i64, u128, Option<u128>, Option<i32>), [String; 5]);

fn columns() -> impl Strategy<Value = Columns> {
    let ids = (any::<u128>(), 0..i64::from(i32::MAX), any::<u128>(), any::<Option<u128>>(), any::<Option<i32>>());
    (ids, prop::array::uniform5("[ab]{0,3}"))
}

fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).expect("a time")
}

fn hash_of(((id, micros, trace, request, notices), texts): &Columns) -> Hash {
    let [actor, action, subject_id, outcome, detail] = texts.each_ref().map(String::as_str);
    EventFields {
        audit_event_id: Uuid::from_u128(*id),
        create_time: time(*micros),
        actor,
        action,
        subject_id,
        outcome,
        trace_id: Uuid::from_u128(*trace),
        request_id: request.map(Uuid::from_u128),
        detail,
        notices: *notices,
    }
    .hash()
}

fn entry(account_id: i64, version: i64, amount: i64, balance_after: i64) -> Entry {
    let account = AccountKey { purpose: Purpose::PlatformClearing, asset: Asset::Usdt };
    Entry { account, account_id, version, amount, balance_after }
}

fn transaction(entries: &[Entry]) -> TransactionFields<'_> {
    TransactionFields {
        transaction_id: Uuid::from_u128(1),
        kind: "REFUND",
        create_time: time(1),
        payment_id: Some(Uuid::from_u128(2)),
        payout_id: None,
        adjustment_id: None,
        audit_event_id: Some(Uuid::from_u128(3)),
        entries,
    }
}

fn block() -> Block {
    Block {
        chain_id: Uuid::from_u128(1),
        position: 1,
        create_time: time(1),
        parents: vec![(Uuid::from_u128(2), 7), (Uuid::from_u128(3), 8)],
        audit_events: vec![(Uuid::from_u128(4), [4; 32]), (Uuid::from_u128(5), [5; 32])],
        transactions: vec![(Uuid::from_u128(6), [6; 32])],
    }
}

/// None of the hashes is another's.
fn all_differ(mut hashes: Vec<Hash>) -> bool {
    hashes.sort_unstable();
    hashes.windows(2).all(|pair| pair[0] != pair[1])
}

proptest! {
    #[test]
    fn two_events_have_one_hash_only_if_they_are_one(one in columns(), other in columns(), swaps in 0_u16..1024) {
        // The other takes some of its columns from the first, so that they differ in few.
        let mut mixed = other;
        let keep = |bit: u16| swaps & (1 << bit) != 0;
        if keep(0) { mixed.0.0 = one.0.0; }
        if keep(1) { mixed.0.1 = one.0.1; }
        if keep(2) { mixed.0.2 = one.0.2; }
        if keep(3) { mixed.0.3 = one.0.3; }
        if keep(4) { mixed.0.4 = one.0.4; }
        for (text, bit) in (0..5).zip(5..) {
            if keep(bit) { mixed.1[text].clone_from(&one.1[text]); }
        }
        prop_assert_eq!(hash_of(&one) == hash_of(&mixed), one == mixed);
    }

    #[test]
    fn an_events_columns_can_not_change_places(row in columns(), first in 0_usize..5, second in 0_usize..5) {
        let mut swapped = row.clone();
        swapped.1.swap(first, second);
        prop_assert_eq!(hash_of(&row) == hash_of(&swapped), row == swapped);
    }

    #[test]
    fn a_transactions_entries_count_whatever_their_order(
        rows in prop::collection::vec((0_i64..3, 0_i64..3, -2_i64..3, -2_i64..3), 0..5),
        other in prop::collection::vec((0_i64..3, 0_i64..3, -2_i64..3, -2_i64..3), 0..5),
    ) {
        let entries = |rows: &[(i64, i64, i64, i64)]| rows.iter().map(|row| entry(row.0, row.1, row.2, row.3)).collect::<Vec<_>>();
        let unique = |rows: &mut Vec<(i64, i64, i64, i64)>| { rows.sort_unstable(); rows.dedup_by_key(|row| (row.0, row.1)); };
        let (mut rows, mut other) = (rows, other);
        unique(&mut rows);
        unique(&mut other);
        let hash = |entries: &[Entry]| transaction(entries).hash();
        let mut backwards = entries(&rows);
        backwards.reverse();
        prop_assert_eq!(hash(&entries(&rows)), hash(&backwards));
        prop_assert_eq!(hash(&entries(&rows)) == hash(&entries(&other)), rows == other);
    }
}

#[test]
fn every_column_of_a_transaction_counts() {
    let entries = [entry(1, 1, 5, 5), entry(2, 1, -5, -5)];
    let base = transaction(&entries);
    let (two, none) = (Some(Uuid::from_u128(2)), None);
    let changed = vec![
        base.clone(),
        TransactionFields { transaction_id: Uuid::from_u128(9), ..base.clone() },
        TransactionFields { kind: "REFUNDS", ..base.clone() },
        TransactionFields { create_time: time(2), ..base.clone() },
        TransactionFields { payment_id: none, ..base.clone() },
        TransactionFields { payment_id: none, payout_id: two, ..base.clone() },
        TransactionFields { payment_id: none, adjustment_id: two, ..base.clone() },
        TransactionFields { audit_event_id: two, ..base.clone() },
        TransactionFields { audit_event_id: none, ..base.clone() },
        TransactionFields { entries: &entries[..1], ..base },
    ];
    assert!(all_differ(changed.iter().map(TransactionFields::hash).collect()));
}

#[test]
fn every_part_of_a_block_and_what_it_follows_counts() {
    let follows = [[7; 32], [8; 32]];
    let base = block();
    let with = |change: fn(&mut Block)| {
        let mut block = base.clone();
        change(&mut block);
        block.hash(&follows)
    };
    let hashes = vec![
        base.hash(&follows),
        base.hash(&[[8; 32], [7; 32]]),
        base.hash(&[[7; 32]]),
        base.hash(&[]),
        with(|block| block.chain_id = Uuid::from_u128(9)),
        with(|block| block.position = 2),
        with(|block| block.create_time = time(2)),
        with(|block| block.parents.reverse()),
        with(|block| block.parents[0].1 = 8),
        with(|block| block.parents.truncate(1)),
        with(|block| block.audit_events.reverse()),
        with(|block| block.audit_events[0].0 = Uuid::from_u128(9)),
        with(|block| block.audit_events[0].1 = [9; 32]),
        with(|block| block.audit_events.truncate(1)),
        with(|block| block.transactions[0].0 = Uuid::from_u128(9)),
        with(|block| block.transactions[0].1 = [9; 32]),
        with(|block| block.transactions.clear()),
        with(|block| block.transactions.insert(0, block.audit_events[1])),
        with(|block| {
            let last = block.audit_events.remove(1);
            block.transactions.insert(0, last);
        }),
    ];
    assert!(all_differ(hashes));
}
