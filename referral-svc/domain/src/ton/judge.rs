//! Whether a transaction pays for a payment.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Finding, TonTerms, Verification};
use crate::reference::ExternalRef;

/// What the chain says of a transaction: of the one message in it that concerns us, or of the first one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Its hash.
    pub hash: ExternalRef,
    /// Whether it did what it was to do.
    pub success: bool,
    /// When it was.
    pub time: DateTime<Utc>,
    /// Who received, raw; none: no message carried money.
    pub destination: Option<String>,
    /// How much, in nanotons.
    pub nanotons: i64,
    /// The transfer's comment; empty: none.
    pub comment: String,
}

/// What an attempt to look a transaction up came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Looked {
    /// It is known.
    Found(Facts),
    /// It isn't known, or not yet.
    NotFound,
    /// Nobody could be asked; to be asked again after that long, at least.
    Unavailable(Option<TimeDelta>),
}

/// The clocks of chain and database may differ by so much.
const ALLOWANCE: TimeDelta = TimeDelta::minutes(5);

/// How long an unknown transaction is waited for since the chain first answered.
const UNKNOWN_FOR: TimeDelta = TimeDelta::minutes(30);

/// And how often it was asked about by then: the service may have been away itself.
const UNKNOWN_TIMES: i32 = 5;

const RETRY_FIRST: TimeDelta = TimeDelta::seconds(2);
const RETRY_MAX: TimeDelta = TimeDelta::minutes(5);

/// Judges what was seen. `created` is when the payment was opened; `jitter`, from 0 to 255, spreads the attempts.
pub fn judge(
    terms: &TonTerms,
    created: DateTime<Utc>,
    verification: &Verification,
    looked: &Looked,
    now: DateTime<Utc>,
    jitter: u8,
) -> Finding {
    let again = || retry_time(verification.attempts, now, jitter);
    match looked {
        Looked::Found(facts) => match fault(terms, created, facts) {
            None => Finding::Paid(facts.hash.clone()),
            Some(fault) => {
                let came = facts.success && facts.destination.as_deref() == Some(terms.address.as_str());
                Finding::NotPaid(fault, came.then(|| facts.hash.clone()))
            }
        },
        Looked::NotFound => {
            let since = verification.first_answer_time.unwrap_or(now);
            if now.signed_duration_since(since) >= UNKNOWN_FOR && verification.attempts >= UNKNOWN_TIMES {
                Finding::NotPaid("NOT_FOUND", None)
            } else {
                Finding::Later("NOT_FOUND", again())
            }
        }
        Looked::Unavailable(at_least) => {
            let floor = at_least.and_then(|wait| now.checked_add_signed(wait)).unwrap_or(now);
            Finding::Later(Finding::UNAVAILABLE, again().max(floor))
        }
    }
}

/// The first thing that is not as agreed.
fn fault(terms: &TonTerms, created: DateTime<Utc>, facts: &Facts) -> Option<&'static str> {
    if !facts.success {
        Some("TRANSACTION_FAILED")
    } else if facts.destination.as_deref() != Some(terms.address.as_str()) {
        Some("DESTINATION_DIFFERS")
    } else if facts.comment.trim() != terms.memo {
        Some("MEMO_DIFFERS")
    } else if facts.time < created.checked_sub_signed(ALLOWANCE).unwrap_or(created) {
        Some("TOO_OLD")
    } else if !terms.price().is_met_by(facts.nanotons) {
        Some("AMOUNT_DIFFERS")
    } else {
        None
    }
}

/// Two seconds after the first attempt, then twice as long each time up to five minutes; up to a quarter more.
fn retry_time(attempts: i32, now: DateTime<Utc>, jitter: u8) -> DateTime<Utc> {
    let doublings = u32::try_from(attempts).unwrap_or(0).min(16);
    let base = RETRY_FIRST.checked_mul(1_i32.checked_shl(doublings).unwrap_or(i32::MAX)).unwrap_or(RETRY_MAX);
    let base = base.min(RETRY_MAX);
    let more = base.num_milliseconds().saturating_mul(i64::from(jitter)).checked_div(4 * 255).unwrap_or(0);
    now.checked_add_signed(base).and_then(|time| time.checked_add_signed(TimeDelta::milliseconds(more))).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ton::Rate;
    use proptest::prelude::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).expect("a time")
    }

    fn terms() -> TonTerms {
        let rate = Rate { minor_units: 5_000_000, source: "tonapi.io".to_owned(), time: now() };
        let address = format!("0:{}", "ab".repeat(32));
        TonTerms { address, nanotons: 7_800_000_000, memo: "P2PHUB-1".to_owned(), tolerance_bps: 100, rate }
    }

    fn facts() -> Facts {
        let TonTerms { address, nanotons, memo, .. } = terms();
        let hash = ExternalRef::from_stored("cd".repeat(32));
        Facts { hash, success: true, time: now(), destination: Some(address), nanotons, comment: memo }
    }

    fn verdict(looked: Looked, verification: &Verification) -> Finding {
        judge(&terms(), now(), verification, &looked, now() + TimeDelta::minutes(10), 0)
    }

    #[test]
    fn each_fault_has_its_word() {
        let found = |facts| verdict(Looked::Found(facts), &Verification::default());
        assert_eq!(found(facts()), Finding::Paid(facts().hash));
        assert_eq!(found(Facts { success: false, ..facts() }), Finding::NotPaid("TRANSACTION_FAILED", None));
        assert_eq!(found(Facts { destination: None, ..facts() }), Finding::NotPaid("DESTINATION_DIFFERS", None));
        assert_eq!(
            found(Facts { comment: String::new(), ..facts() }),
            Finding::NotPaid("MEMO_DIFFERS", Some(facts().hash))
        );
        assert_eq!(
            found(Facts { time: now() - TimeDelta::hours(1), ..facts() }),
            Finding::NotPaid("TOO_OLD", Some(facts().hash))
        );
        for (nanotons, fits) in [
            (7_722_000_000, true),
            (7_721_999_999, false),
            (7_878_000_000, true),
            (7_878_000_001, false),
            (0, false),
            (i64::MAX, false),
        ] {
            let expected =
                if fits { Finding::Paid(facts().hash) } else { Finding::NotPaid("AMOUNT_DIFFERS", Some(facts().hash)) };
            assert_eq!(found(Facts { nanotons, ..facts() }), expected, "{nanotons}");
        }
    }

    #[test]
    fn the_unknown_is_waited_for_and_an_outage_for_ever() {
        let since = |minutes: i64| Verification {
            attempts: 5,
            first_answer_time: Some(now() + TimeDelta::minutes(10 - minutes)),
            ..Verification::default()
        };
        assert!(matches!(verdict(Looked::NotFound, &since(29)), Finding::Later("NOT_FOUND", _)));
        assert_eq!(verdict(Looked::NotFound, &since(30)), Finding::NotPaid("NOT_FOUND", None));
        assert!(matches!(
            verdict(Looked::Unavailable(None), &since(10_000)),
            Finding::Later("VERIFIER_UNAVAILABLE", _)
        ));
        let asked = TimeDelta::hours(1);
        let later = now() + TimeDelta::minutes(10) + asked;
        assert_eq!(
            verdict(Looked::Unavailable(Some(asked)), &since(1)),
            Finding::Later("VERIFIER_UNAVAILABLE", later),
            "what the server asks for is a floor"
        );
    }

    proptest! {
        #[test]
        fn attempts_wait_from_two_seconds_to_little_more_than_five_minutes(attempts in 0..i32::MAX, jitter: u8) {
            let wait = retry_time(attempts, now(), jitter) - now();
            prop_assert!(wait >= RETRY_FIRST && wait <= RETRY_MAX + TimeDelta::seconds(75));
            prop_assert!(retry_time(attempts.saturating_add(1), now(), 0) >= retry_time(attempts, now(), 0));
        }
    }
}
