//! A service as a process of its own, for tests that kill it. `PAIR_PROCESS` says which; the arguments are the
//! service's own.

use std::{
    env,
    io::{self, Read},
    process::{self, ExitCode},
    thread,
};

fn main() -> ExitCode {
    // The test holds the other end: a test that is killed takes its services with it.
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        process::exit(1);
    });
    match env::var("PAIR_PROCESS").as_deref() {
        Ok("referral-svc") => referral_svc::main(),
        Ok("notify-svc") => notify_svc::main(),
        Ok("p2phub") => p2phub::main(),
        other => {
            eprintln!("PAIR_PROCESS must name a service: {other:?}");
            ExitCode::FAILURE
        }
    }
}
