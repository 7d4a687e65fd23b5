//! The listener itself: who may change what, who gives way, and that whoever stalls holds nothing for long.

use std::time::Instant;

use ::http::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn listen(given: Option<SocketAddr>, default: SocketAddr) -> Listen {
    Listen { given, default, variable: "TEST_HTTP_LISTEN", grpc: ANY_PORT }
}

async fn status_from(from: &str, method: Method, path: &str) -> StatusCode {
    let router = routes::router(Health::default(), Arc::new(Peer::new("nobody", None)));
    let mut request = Request::new(Body::from("verbose"));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    request.extensions_mut().insert(ConnectInfo(from.parse::<SocketAddr>().unwrap()));
    router.oneshot(request).await.unwrap().status()
}

#[tokio::test]
async fn only_this_machine_may_change_the_log_level() {
    for (from, status) in [
        ("127.0.0.1:1", StatusCode::BAD_REQUEST),
        ("[::ffff:127.0.0.1]:1", StatusCode::BAD_REQUEST),
        ("192.0.2.7:1", StatusCode::FORBIDDEN),
        ("[::ffff:192.0.2.7]:1", StatusCode::FORBIDDEN),
    ] {
        assert_eq!(status_from(from, Method::PUT, "/log-level").await, status, "{from}");
    }
    assert_eq!(status_from("192.0.2.7:1", Method::GET, "/livez").await, StatusCode::OK);
}

#[tokio::test]
async fn it_is_not_ready_before_anything_is_known() {
    assert_eq!(status_from("127.0.0.1:1", Method::GET, "/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_default_gives_way_and_what_is_set_does_not() {
    let taken = TcpListener::bind(ANY_PORT).await.unwrap();
    let address = taken.local_addr().unwrap();
    let elsewhere = listen(None, address).bind().await.unwrap();
    assert_ne!(elsewhere.local_addr().unwrap(), address);
    let error = listen(Some(address), ANY_PORT).bind().await.unwrap_err();
    assert!(format!("{error:#}").contains("TEST_HTTP_LISTEN"), "{error:#}");

    drop(taken);
    let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
    let grpc = Listen { grpc: everywhere, ..listen(None, address) };
    assert_ne!(grpc.bind().await.unwrap().local_addr().unwrap(), address, "the service itself needs that port");
}

#[tokio::test]
async fn clients_that_stall_lose_their_places() {
    let peer = Peer::new("nobody", None);
    let server = HttpServer::start(listen(Some(ANY_PORT), ANY_PORT), Health::default(), peer).await.unwrap();
    let mut stalled = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(server.local_addr).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: here\r\n").await.unwrap();
        stalled.push(stream);
    }
    let asked = Instant::now();
    let mut stream = TcpStream::connect(server.local_addr).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let waited = asked.elapsed();
    assert!(waited > HEADERS_LIMIT / 2, "they held no places: {waited:?}");
    assert!(waited < HEADERS_LIMIT * 3, "{waited:?}");
    server.stop().await;
}
