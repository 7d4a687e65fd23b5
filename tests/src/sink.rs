//! An HTTP server on loopback that stands in for webhooks and Telegram: it records requests and answers as told.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::wait;

/// A request that came.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub path: String,
    /// By lower-case name.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    pub at: Instant,
}

impl Received {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

/// What the sink answers.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    delay: Duration,
    lost: bool,
    endless: Option<Endless>,
}

/// After its head, an answer that never ends.
#[derive(Clone, Debug)]
struct Endless {
    head: &'static str,
    chunk_bytes: usize,
    interval: Duration,
}

impl Reply {
    /// An empty answer with a status.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new(), delay: Duration::ZERO, lost: false, endless: None }
    }

    /// An answer with a JSON body.
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self { body: body.to_string(), ..Self::status(status) }.header("content-type", "application/json")
    }

    /// An answer with a body of plain text.
    pub fn text(status: u16, body: &str) -> Self {
        Self { body: body.to_owned(), ..Self::status(status) }.header("content-type", "text/plain")
    }

    /// No answer, ever: the connection stays open for an hour.
    pub fn hang() -> Self {
        Self::lost().after(Duration::from_secs(3_600))
    }

    /// No answer: the connection is closed once the request has been read.
    pub fn lost() -> Self {
        Self { lost: true, ..Self::status(200) }
    }

    /// An answer that begins with `head`, as it goes over the wire, and goes on for ever: so many bytes, every so often.
    pub fn endless(head: &'static str, chunk_bytes: usize, interval: Duration) -> Self {
        Self { endless: Some(Endless { head, chunk_bytes, interval }), ..Self::status(200) }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    fn to_http(&self) -> String {
        let mut text = format!("HTTP/1.1 {} Told\r\ncontent-length: {}\r\n", self.status, self.body.len());
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text + "\r\n" + &self.body
    }
}

struct Script {
    next: VecDeque<Reply>,
    next_with: HashMap<String, VecDeque<Reply>>,
    otherwise: Reply,
    received: Vec<Received>,
}

impl Script {
    fn reply(&mut self, received: &Received) -> Reply {
        let body = String::from_utf8_lossy(&received.body);
        let mut told = self.next_with.iter_mut();
        let told =
            told.find(|(part, next)| !next.is_empty() && (received.path.contains(*part) || body.contains(*part)));
        let next = told.and_then(|(_, next)| next.pop_front()).or_else(|| self.next.pop_front());
        next.unwrap_or_else(|| self.otherwise.clone())
    }
}

/// The sink; it ends when dropped.
pub struct Sink {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    accepting: JoinHandle<()>,
}

impl Sink {
    /// Answers everything with an empty 200 until told otherwise.
    pub async fn start() -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// As `start`, at an address of one's choice: a server that comes back.
    pub async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let script = Script {
            next: VecDeque::new(),
            next_with: HashMap::new(),
            otherwise: Reply::status(200),
            received: Vec::new(),
        };
        let script = Arc::new(Mutex::new(script));
        let shared = script.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, shared.clone()));
            }
        });
        Self { address, script, accepting }
    }

    /// The URL of a path, which starts with a slash or is empty.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Has the next requests answered so, one each, in order.
    pub fn then(&self, replies: impl IntoIterator<Item = Reply>) {
        lock(&self.script).next.extend(replies);
    }

    /// The same for requests that hold a text in their path or body.
    pub fn then_with(&self, part: &str, replies: impl IntoIterator<Item = Reply>) {
        lock(&self.script).next_with.entry(part.to_owned()).or_default().extend(replies);
    }

    /// Has all requests answered so that `then` says nothing about.
    pub fn otherwise(&self, reply: Reply) {
        lock(&self.script).otherwise = reply;
    }

    /// Every request so far, in order.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.script).received.clone()
    }

    /// Listens no more.
    pub async fn close(&mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
    }

    /// Waits for that many requests, and returns all that came.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        wait::until(&format!("{count} requests at the sink"), async || {
            let received = self.received();
            (received.len() >= count).then_some(received)
        })
        .await
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock(script: &Mutex<Script>) -> MutexGuard<'_, Script> {
    script.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(mut client: TcpStream, script: Arc<Mutex<Script>>) {
    // A client that goes away in the middle is no concern of the sink's.
    let _ = converse(&mut client, &script).await;
}

async fn converse(client: &mut TcpStream, script: &Mutex<Script>) -> io::Result<()> {
    let (input, mut output) = client.split();
    let mut input = BufReader::new(input);
    while let Some(received) = read_request(&mut input).await? {
        let reply = {
            let mut script = lock(script);
            let reply = script.reply(&received);
            script.received.push(received);
            reply
        };
        tokio::time::sleep(reply.delay).await;
        if reply.lost {
            return Ok(());
        }
        if let Some(endless) = &reply.endless {
            return go_on(&mut output, endless).await;
        }
        output.write_all(reply.to_http().as_bytes()).await?;
    }
    Ok(())
}

async fn go_on(output: &mut (impl AsyncWriteExt + Unpin), endless: &Endless) -> io::Result<()> {
    output.write_all(endless.head.as_bytes()).await?;
    let chunk = vec![b'x'; endless.chunk_bytes];
    loop {
        output.write_all(&chunk).await?;
        tokio::time::sleep(endless.interval).await;
    }
}

async fn read_request(input: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Option<Received>> {
    let mut line = String::new();
    if input.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line).await?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.insert(name.trim().to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    input.read_exact(&mut body).await?;
    Ok(Some(Received { method, path, headers, body, at: Instant::now() }))
}
