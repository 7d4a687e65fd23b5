//! A service as a process of its own, for tests that kill it.

use std::process::ExitCode;

fn main() -> ExitCode {
    p2phub_tests::process::main()
}
