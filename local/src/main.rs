//! `cargo run`: the local pair.

use std::process::ExitCode;

fn main() -> ExitCode {
    p2phub::main()
}
