//! A service as a process of its own: `PAIR_PROCESS` says which; the arguments are the service's own.

use std::{
    env, io,
    process::{self, ExitCode},
    thread,
};

use chrono::TimeDelta;
use clap::Parser;
use referral_svc::{Clock, Config};

/// Names the service that a process is to be.
pub const VARIABLE: &str = "PAIR_PROCESS";

/// How far ahead referral-svc's clock goes at its start, in microseconds. If it is set, each line on the input says so anew,
/// and [`shifted`] is printed once it holds.
pub const CLOCK_AHEAD: &str = "PAIR_CLOCK_AHEAD";

/// Past the end of the calendar: whatever looks at such a clock panics.
pub const CLOCK_BROKEN: i64 = i64::MAX;

/// The line that says how far ahead the clock goes from now on.
pub(crate) fn shifted(ahead_micros: i64) -> String {
    format!("clock ahead by {ahead_micros} us\n")
}

/// The whole of such a process.
pub fn main() -> ExitCode {
    let clock = Clock::default();
    let ahead = env::var(CLOCK_AHEAD).ok();
    if let Some(ahead) = &ahead {
        shift(&clock, ahead);
    }
    let listening = clock.clone();
    // The test holds the other end: a test that is killed takes its services with it.
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            print!("{}", shifted(shift(&listening, &line)));
        }
        process::exit(1);
    });
    match env::var(VARIABLE).as_deref() {
        Ok("referral-svc") if ahead.is_some() => referral(clock),
        Ok("referral-svc") => referral_svc::main(),
        Ok("notify-svc") => notify_svc::main(),
        Ok("p2phub") => p2phub::main(),
        other => {
            eprintln!("{VARIABLE} must name a service: {other:?}");
            ExitCode::FAILURE
        }
    }
}

fn shift(clock: &Clock, ahead: &str) -> i64 {
    let ahead = ahead.parse().expect("microseconds");
    clock.set_ahead(TimeDelta::microseconds(ahead));
    ahead
}

fn referral(clock: Clock) -> ExitCode {
    let config = Config { clock, ..Config::parse() };
    service::process::run("referral-svc", async |shutdown| {
        referral_svc::start(config, shutdown).await?.finished().await
    })
}
