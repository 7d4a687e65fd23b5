//! The harness itself: a test that leans on a proxy or a sink is worth no more than these.

use std::{sync::Arc, time::Duration};

use p2phub_tests::{
    postgres::{Role, Server, connect},
    proxy::{Proxy, Upstream},
    sink::{Reply, Sink},
    wait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const MOMENT: Duration = Duration::from_millis(200);

async fn ask(sink: &Sink, body: &str) -> Option<String> {
    let address = sink.url("").trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).await.expect("a connection");
    let request = format!("POST /hook HTTP/1.1\r\nX-Try: 1\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut answer = vec![0; 1024];
    let count = timeout(MOMENT, stream.read(&mut answer)).await.ok()?.expect("an answer");
    Some(String::from_utf8_lossy(&answer[..count]).into_owned())
}

#[tokio::test]
async fn the_sink_answers_as_told_and_remembers() {
    let sink = Sink::start().await;
    sink.then([Reply::status(503).header("retry-after", "7"), Reply::lost(), Reply::hang()]);
    let first = ask(&sink, "{\"a\":1}").await.expect("an answer");
    assert!(first.starts_with("HTTP/1.1 503") && first.contains("retry-after: 7"), "{first}");
    assert_eq!(ask(&sink, "").await.as_deref(), Some(""), "a lost answer closes the connection");
    assert_eq!(ask(&sink, "").await, None, "a hanging one leaves it open");
    assert!(ask(&sink, "").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
    let received = sink.wait_for(4).await;
    assert_eq!((received[0].method.as_str(), received[0].path.as_str()), ("POST", "/hook"));
    assert_eq!(received[0].headers["x-try"], "1");
    assert_eq!(received[0].json()["a"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_cuts_pauses_and_resumes() {
    let server = Server::shared().await;
    let databases = server.fresh().await;
    let proxy = Proxy::start(Upstream::Unix(server.socket())).await;
    let url = format!("postgresql://referral_svc@{}/{}", proxy.address(), databases.referral);
    let client = connect(&url).await;
    client.simple_query("SELECT 1").await.expect("an answer through the proxy");

    proxy.pause();
    assert!(timeout(MOMENT, client.simple_query("SELECT 1")).await.is_err(), "paused, and yet it answered");
    proxy.resume();
    client.simple_query("SELECT 1").await.expect("an answer after the pause");

    proxy.cut();
    wait::until("the connection to end", async || client.is_closed().then_some(())).await;
    assert!(tokio_postgres::connect(&url, tokio_postgres::NoTls).await.is_err(), "cut, and yet it took a connection");
    proxy.resume();
    let client = connect(&url).await;
    proxy.cut_once();
    wait::until("the connection to end", async || client.is_closed().then_some(())).await;
    connect(&url).await.simple_query("SELECT 1").await.expect("an answer after one cut");
    server.discard(&databases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_ones_own_can_be_killed_and_restarted() {
    let server = Arc::new(Server::own().await);
    let databases = server.fresh().await;
    let url = server.referral_url(&databases, Role::Owner);
    connect(&url).await.batch_execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)").await.expect("a table");
    for killed in [true, false] {
        if killed {
            server.kill().await.expect("a kill");
        } else {
            server.stop().await.expect("a stop");
        }
        assert!(tokio_postgres::connect(&url, tokio_postgres::NoTls).await.is_err(), "it still runs");
        server.start().await.expect("a start");
        let row = connect(&url).await.query_one("SELECT n FROM kept", &[]).await.expect("a row");
        assert_eq!(row.get::<_, i32>(0), 7);
    }
}
