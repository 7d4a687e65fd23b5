//! Where a benchmark runs: processes of this very program on databases that keep what they commit.

use std::env;

use p2phub_tests::{
    pair::{Options, Pair},
    postgres::Server,
};

/// What the server does to keep what is committed.
pub(crate) async fn durable() -> String {
    let server = Server::shared().await;
    let client = server.connect("postgres", "postgres").await.expect("a superuser's connection");
    let mut settings = Vec::new();
    for name in ["fsync", "synchronous_commit", "full_page_writes"] {
        let value: String = client.query_one(&format!("SHOW {name}"), &[]).await.expect("a setting").get(0);
        assert_eq!(value, "on", "{name}: figures without it would mean nothing");
        settings.push(format!("{name} {value}"));
    }
    settings.join(", ")
}

/// Processes of this very program.
pub(crate) fn options() -> Options {
    let program = env::current_exe().expect("this program").into_os_string().into_string().expect("a path in UTF-8");
    // The books are checked by themselves only where nobody measures.
    Options::default().processes(program.leak()).variable("LEDGER_CHECK_INTERVAL_MINUTES", "0")
}

/// Ends it all at once: nobody waits for what is still in flight.
pub(crate) async fn discard(mut pair: Pair) {
    drop((pair.referral.take(), pair.notify.take()));
    pair.finish().await;
}
