use super::*;
use proptest::prelude::*;
use uuid::Uuid;

fn reference(name: &str) -> ExternalRef {
    ExternalRef::normalise(name).expect("a reference")
}

fn line(name: &str, amount: i64) -> Line {
    Line { reference: reference(name), currency: Currency::Asset(Asset::Usdt), amount, time: None }
}

fn booked(amount: i64, refunded: i64) -> Booked {
    Booked {
        incoming: None,
        payment_id: Uuid::nil().into(),
        reference: reference("a"),
        asset: Asset::Usdt,
        amount,
        refunded,
        is_earlier: false,
        ton: None,
        confirm_time: DateTime::UNIX_EPOCH,
    }
}

fn agrees(lines: &[i64], booked: &Booked, with_refunds: bool) -> bool {
    let mut statement = Statement::new(with_refunds);
    for (number, amount) in (1..).zip(lines) {
        statement.add(number, line("a", *amount)).expect("a line");
    }
    booked.agrees_with(statement.get(&reference("a")).expect("it is there"), statement.with_refunds)
}

#[test]
fn a_statement_may_list_both_ways_or_one() {
    let partly = booked(39, 10);
    for (lines, alone, among_refunds) in [
        (vec![39, -10], true, true),
        (vec![20, 19, -4, -6], true, true),
        (vec![29], true, true),
        // Of a refund it says nothing: fine if it lists none.
        (vec![39], true, false),
        (vec![38], false, false),
        (vec![39, -9], false, false),
        (vec![-10], false, false),
    ] {
        assert_eq!(agrees(&lines, &partly, false), alone, "{lines:?}");
        assert_eq!(agrees(&lines, &partly, true), among_refunds, "{lines:?}, among refunds");
    }
    let whole = booked(39, 39);
    assert!(agrees(&[39, -39], &whole, false) && agrees(&[39], &whole, false) && !agrees(&[-39], &whole, false));
    assert!(!agrees(&[39], &whole, true) && !agrees(&[39, -39], &booked(39, 0), false));
}

#[test]
fn a_statement_in_ton_has_what_was_sent_within_its_tolerance() {
    let price = TonPrice { nanotons: 10_000_000_000, tolerance_bps: 100 };
    let agrees = |came, went, booked: &Booked| {
        let stated = Stated { line: 1, currency: Currency::Ton, came, went, time: None };
        assert_eq!(booked.agrees_with(&stated, true), booked.agrees_with(&stated, false));
        booked.agrees_with(&stated, true)
    };
    let paid = Booked { ton: Some(price), ..booked(39, 0) };
    for (came, expected) in [(9_900_000_000, true), (10_100_000_000, true), (9_899_999_999, false), (39, false)] {
        assert_eq!(agrees(came, 0, &paid), expected, "{came}");
        assert!(!agrees(came, 0, &booked(39, 0)), "it was not paid in TON");
    }
    assert!(!agrees(10_000_000_000, 1, &paid));
    let refunded = Booked { ton: Some(price), ..booked(39, 39) };
    assert!(agrees(10_000_000_000, 9_500_000_000, &refunded) && !agrees(0, 9_500_000_000, &refunded));
    assert!(agrees(0, 9_500_000_000, &Booked { is_earlier: true, ..refunded }));
    // And it can be told in USDT still.
    let in_usdt = Stated { line: 1, currency: Currency::Asset(Asset::Usdt), came: 39, went: 0, time: None };
    assert!(paid.agrees_with(&in_usdt, true));
}

#[test]
fn each_month_has_its_own_part_of_a_payment() {
    // 39 came in the first, 10 went back in it, 29 in the second.
    let (first, second) = (booked(39, 10), Booked { is_earlier: true, ..booked(39, 29) });
    for (lines, of_first, of_second) in [
        (vec![39, -10], true, false),
        (vec![-29], false, true),
        (vec![-10], false, false),
        (vec![-39], false, false),
        (vec![39, -29], false, true),
        (vec![5, -5], false, false),
    ] {
        assert_eq!((agrees(&lines, &first, false), agrees(&lines, &second, false)), (of_first, of_second), "{lines:?}");
    }
    assert_eq!((first.net(), second.net()), (29, -29));
}

#[test]
fn what_cannot_be_summed_is_refused_and_changes_nothing() {
    let mut statement = Statement::default();
    statement.add(1, line("a", i64::MAX)).expect("a line");
    assert_eq!(statement.add(2, line("a", 1)), Err(InvalidLine::Overflow));
    assert_eq!(statement.add(3, line("b", i64::MIN)), Err(InvalidLine::Overflow));
    assert_eq!(statement.get(&reference("a")).map(Stated::net), Some(i64::MAX));
    assert_eq!(statement.get(&reference("b")), None);
}

proptest! {
    #[test]
    fn the_sums_are_the_lines_whatever_their_order(amounts in prop::collection::vec((0..5_u8, -1000_i64..1000), 1..60)) {
        let mut statement = Statement::default();
        for (number, (name, amount)) in (1..).zip(&amounts) {
            statement.add(number, line(&format!("r{name}"), *amount)).expect("a line");
        }
        let total: i64 = amounts.iter().map(|(_, amount)| amount).sum();
        prop_assert_eq!(statement.totals(), BTreeMap::from([(Currency::Asset(Asset::Usdt), total)]));
        let references = statement.references();
        prop_assert!(references.windows(2).all(|pair| pair[0].1.line < pair[1].1.line));
        for (reference, stated) in references {
            let own = || (1..).zip(&amounts).filter(|(_, (name, _))| format!("r{name}") == reference.as_str());
            prop_assert_eq!(stated.net(), own().map(|(_, (_, amount))| amount).sum::<i64>());
            prop_assert_eq!(own().map(|(number, _)| number).min(), Some(stated.line));
        }
    }
}
