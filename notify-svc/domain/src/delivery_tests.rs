//! The state machine, transition by transition.

use chrono::TimeDelta;

use super::*;
use crate::channel::Channel;

const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

fn contacts() -> Vec<Contact> {
    ["telegram", "webhook"].map(|channel| Contact { channel: channel.to_owned(), address: "a".to_owned() }).into()
}

fn standing(contacts: &[Contact], position: i32, tries_used: u32) -> Standing<'_> {
    Standing {
        position,
        attempts: tries_used,
        tries_used,
        attempted: true,
        contacts,
        expire_time: NOW + TimeDelta::days(7),
    }
}

fn on() -> Channels {
    Channels::from_iter([Channel::Telegram, Channel::Webhook])
}

fn after(class: OutcomeClass, position: i32, tries_used: u32) -> Step {
    let contacts = contacts();
    let outcome = Outcome::new(class, "WHY");
    after_try(NOW, &outcome, &standing(&contacts, position, tries_used), &RetryPolicy::default(), &on(), 0)
}

#[test]
fn delivered_is_delivered() {
    assert_eq!(after(OutcomeClass::Delivered, 1, 1), Step::Delivered);
}

#[test]
fn transient_and_ambiguous_are_tried_again() {
    for class in [OutcomeClass::Transient, OutcomeClass::Ambiguous] {
        assert_eq!(after(class, 1, 1), Step::Retry(NOW + TimeDelta::seconds(1)));
        assert_eq!(after(class, 1, 2), Step::Retry(NOW + TimeDelta::seconds(4)));
    }
}

#[test]
fn configuration_is_tried_again_without_hurry() {
    assert_eq!(after(OutcomeClass::Configuration, 1, 1), Step::Retry(NOW + TimeDelta::seconds(60)));
}

#[test]
fn what_this_service_alone_failed_at_ends_with_expiry_only() {
    for class in OutcomeClass::ALL {
        assert_eq!(Outcome::new(*class, "WHY").counts(), *class != OutcomeClass::Configuration);
    }
    for tries_used in [1, 8, 9, 1000] {
        assert!(matches!(after(OutcomeClass::Configuration, 1, tries_used), Step::Retry(_)));
        let (contacts, stopped) = (contacts(), Outcome::new(OutcomeClass::Ambiguous, STOPPED));
        let standing = standing(&contacts, 1, tries_used);
        assert!(!stopped.counts());
        assert_eq!(after_try(NOW, &stopped, &standing, &RetryPolicy::default(), &on(), 0), Step::Retry(NOW));
    }
}

#[test]
fn address_and_content_go_to_the_next_channel_then_die() {
    for class in [OutcomeClass::Address, OutcomeClass::Content] {
        assert!(
            matches!(after(class, 1, 1), Step::Fallback(reason, choice) if reason == "WHY" && choice.channel == Channel::Webhook)
        );
        assert_eq!(after(class, 2, 1), Step::Dead("WHY".into()));
    }
}

#[test]
fn used_up_tries_go_to_the_next_channel_then_die() {
    assert!(matches!(after(OutcomeClass::Transient, 1, 8), Step::Fallback(reason, _) if reason == RETRIES_EXHAUSTED));
    assert_eq!(after(OutcomeClass::Transient, 2, 8), Step::Dead(RETRIES_EXHAUSTED.into()));
}

#[test]
fn a_retry_is_never_later_than_the_expiry() {
    let contacts = contacts();
    let mut standing = standing(&contacts, 1, 5);
    standing.expire_time = NOW + TimeDelta::seconds(3);
    let outcome = Outcome::new(OutcomeClass::Transient, "WHY");
    assert_eq!(
        after_try(NOW, &outcome, &standing, &RetryPolicy::default(), &on(), 0),
        Step::Retry(standing.expire_time)
    );
}

#[test]
fn before_a_try_expiry_comes_first() {
    let (contacts, policy) = (contacts(), RetryPolicy::default());
    let mut late = standing(&contacts, 1, 8);
    late.expire_time = NOW;
    assert_eq!(before_try(NOW, &late, &policy, &on(), false), Some(Step::Expired));
    assert_eq!(before_try(NOW, &standing(&contacts, 1, 7), &policy, &on(), true), None);
    assert_eq!(
        before_try(NOW, &standing(&contacts, 2, 8), &policy, &on(), true),
        Some(Step::Dead(RETRIES_EXHAUSTED.into()))
    );
}

#[test]
fn a_channel_switched_off_meanwhile_is_passed_over() {
    let (contacts, policy, none) = (contacts(), RetryPolicy::default(), Channels::default());
    let mut untried = standing(&contacts, 1, 0);
    untried.attempted = false;
    assert!(matches!(
        before_try(NOW, &untried, &policy, &none, false),
        Some(Step::Fallback(reason, choice)) if reason == CHANNEL_OFF && choice.channel == Channel::Log
    ));
    assert_eq!(
        before_try(NOW, &standing(&contacts, 1, 1), &policy, &none, false),
        Some(Step::Dead(CHANNEL_OFF.into()))
    );
}
