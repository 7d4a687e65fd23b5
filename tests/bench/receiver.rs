//! A web server on loopback under many addresses that answers webhooks as fast as it can, and one that never does.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// A webhook that came: the notification's ID, and when it was there in full.
pub(crate) type Arrival = (String, DateTime<Utc>);

/// The server; it ends when dropped.
pub(crate) struct Receiver {
    addresses: Vec<SocketAddr>,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Receiver {
    /// Under as many addresses, each a provider of its own to whoever sends there.
    pub(crate) async fn start(hosts: usize) -> Self {
        let mut receiver = Self { addresses: Vec::new(), arrivals: Arc::default(), tasks: Vec::new() };
        for _ in 0..hosts {
            let listener = receiver.listen().await;
            let arrivals = Arc::clone(&receiver.arrivals);
            receiver.tasks.push(tokio::spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(answer(client, Arc::clone(&arrivals)));
                }
            }));
        }
        receiver
    }

    /// Takes connections and says nothing, ever.
    pub(crate) async fn hanging() -> Self {
        let mut receiver = Self { addresses: Vec::new(), arrivals: Arc::default(), tasks: Vec::new() };
        let listener = receiver.listen().await;
        receiver.tasks.push(tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((client, _)) = listener.accept().await {
                open.push(client);
            }
        }));
        receiver
    }

    async fn listen(&mut self) -> TcpListener {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        self.addresses.push(listener.local_addr().expect("an address"));
        listener
    }

    /// Where a recipient is reached.
    pub(crate) fn url(&self, recipient: usize) -> String {
        format!("http://{}/{recipient}", self.addresses[recipient % self.addresses.len()])
    }

    /// Its first address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub(crate) fn count(&self) -> usize {
        lock(&self.arrivals).len()
    }

    /// What came since the last time.
    pub(crate) fn take(&self) -> Vec<Arrival> {
        std::mem::take(&mut lock(&self.arrivals))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn lock(arrivals: &Mutex<Vec<Arrival>>) -> MutexGuard<'_, Vec<Arrival>> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(mut client: TcpStream, arrivals: Arc<Mutex<Vec<Arrival>>>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut received = Vec::with_capacity(4096);
    while client.read_buf(&mut received).await? > 0 {
        while let Some((length, id)) = request(&received) {
            lock(&arrivals).push((id, Utc::now()));
            received.drain(..length);
            client.write_all(OK).await?;
        }
    }
    Ok(())
}

/// The length of the first request, if it is there in full, and its webhook-id. Only for clients that write lower-case names,
/// as notify-svc does.
fn request(received: &[u8]) -> Option<(usize, String)> {
    let head = received.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&received[..head]).ok()?;
    let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let body: usize = header("content-length:").and_then(|value| value.parse().ok()).unwrap_or(0);
    let length = head + 4 + body;
    (received.len() >= length).then(|| (length, header("webhook-id:").unwrap_or_default().to_owned()))
}
