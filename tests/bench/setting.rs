//! Where a benchmark runs: processes of this very program on databases that keep what they commit.

use std::env;

use p2phub_tests::{
    pair::{Options, Pair},
    postgres::Server,
};

/// WAL files, of 16 MiB each, that a server in service has left over.
const RECYCLED: usize = 128;

/// What the server does to keep what is committed. It is made what any server is that has been up for some hours: one that
/// writes over old WAL files. A new one fills each with zeros first, which was a third of all that its writer did here.
pub(crate) async fn durable(quick: bool) -> String {
    let server = Server::shared().await;
    let client = server.connect("postgres", "postgres").await.expect("a superuser's connection");
    client.batch_execute("ALTER SYSTEM SET min_wal_size = '2GB'").await.expect("a setting");
    client.batch_execute("SELECT pg_reload_conf()").await.expect("the setting");
    for _ in 0..if quick { RECYCLED / 8 } else { RECYCLED } {
        let fill = "SELECT pg_logical_emit_message(false, 'bench', 'x'); SELECT pg_switch_wal()";
        client.batch_execute(fill).await.expect("a WAL file");
    }
    client.batch_execute("CHECKPOINT").await.expect("the files, recycled");
    let mut settings = Vec::new();
    for name in ["fsync", "synchronous_commit", "full_page_writes"] {
        let value: String = client.query_one(&format!("SHOW {name}"), &[]).await.expect("a setting").get(0);
        assert_eq!(value, "on", "{name}: figures without it would mean nothing");
        settings.push(format!("{name} {value}"));
    }
    settings.join(", ") + ", WAL files recycled"
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
