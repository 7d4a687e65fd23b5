//! What the demo prints.

use std::process::ExitCode;

use p2phub_proto::{
    notify::v1::Notification,
    referral::v1::{AccountPurpose, AuditEvent, CheckLedgerResponse, Transaction},
};

use super::{
    Seen,
    figures::{Expectations, money},
};

pub(super) fn heading(text: &str) {
    println!("\n{text}");
}

pub(super) fn step(text: &str) {
    println!("  {text}");
}

pub(super) fn money_table(seen: &Seen, balances: &[i64]) {
    println!(
        "  {:<8} {:>5}  {:>4}  {:>5}  {:>8}  {:>10}  {:>10}",
        "person", "level", "XP", "rate", "base", "commission", "balance"
    );
    for (person, balance) in seen.people.iter().zip(balances).rev() {
        let earned = seen.commissions.iter().find(|commission| commission.earner_id == person.partner_id);
        let [level, rate, base, amount] = match earned {
            Some(earned) => [
                format!("L{}", earned.level),
                format!("{} %", earned.rate_bps / 100),
                money(earned.base.as_ref().map_or(0, |base| base.minor_units)),
                money(earned.amount.as_ref().map_or(0, |amount| amount.minor_units)),
            ],
            None => ["buyer", "", "", ""].map(str::to_owned),
        };
        let (name, xp, balance) = (&person.first_name, person.xp, money(*balance));
        println!("  {name:<8} {level:>5}  {xp:>4}  {rate:>5}  {base:>8}  {amount:>10}  {balance:>10}");
    }
    println!(
        "  {:<8} {:>5}  {:>4}  {:>5}  {:>8}  {:>10}  {:>10}",
        "together",
        "",
        "",
        "",
        "",
        "",
        money(balances.iter().sum())
    );
}

pub(super) fn platform(transaction: &Transaction) {
    for entry in &transaction.entries {
        let label = match entry.purpose() {
            AccountPurpose::PlatformRevenue => "revenue",
            AccountPurpose::PlatformClearing => "clearing",
            _ => continue,
        };
        let amount = entry.amount.as_ref().map_or(0, |amount| amount.minor_units);
        println!("  {label:<8} {:>52}", money(amount));
    }
}

pub(super) fn notifications(seen: &Seen) {
    for person in &seen.people {
        for one in seen.notifications.iter().filter(|one| one.recipient_id == person.partner_id) {
            let kind = short(one.kind().as_str_name(), "NOTIFICATION_KIND_");
            let state = short(one.state().as_str_name(), "NOTIFICATION_STATE_");
            println!("  {:<8} {kind:<20} {state:<10} {}", person.first_name, channels(one));
        }
    }
}

fn channels(notification: &Notification) -> String {
    let each = notification.deliveries.iter().map(|delivery| {
        let attempts = delivery.attempts.len();
        format!("{} ({attempts} attempt{})", delivery.channel, if attempts == 1 { "" } else { "s" })
    });
    each.collect::<Vec<_>>().join(", ")
}

pub(super) fn trace(seen: &Seen, audit: &[AuditEvent]) {
    step(&seen.sale.trace_id);
    for event in audit {
        step(&format!("referral-svc  audit event {} by {}: {}", event.action, event.actor, event.outcome));
    }
    let carried = seen.notifications.iter().filter(|one| one.trace_id == seen.sale.trace_id).count();
    step(&format!("notify-svc    {carried} notifications"));
}

pub(super) fn ledger(check: &CheckLedgerResponse) {
    for one in &check.checks {
        let result = if one.ok { "ok" } else { "WRONG" };
        println!("  {result:<6} {:<44} {:>6} rows  {}", one.name, one.rows, one.detail);
    }
}

/// The last word, and the exit code that goes with it.
pub(super) fn verdict(expectations: &Expectations) -> ExitCode {
    if expectations.broken.is_empty() {
        heading(&format!("All is as it should be: {} expectations checked.", expectations.held));
        return ExitCode::SUCCESS;
    }
    heading(&format!(
        "{} of {} expectations are off:",
        expectations.broken.len(),
        expectations.broken.len() + expectations.held
    ));
    for broken in &expectations.broken {
        step(broken);
    }
    ExitCode::FAILURE
}

fn short(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase().replace('_', " ")
}
