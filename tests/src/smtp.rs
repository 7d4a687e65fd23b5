//! An SMTP server on loopback: it takes mail, keeps it, and answers as told at each stage of the conversation.

mod certificate;
mod letter;
mod session;

use std::{
    collections::{HashMap, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::wait;
pub use letter::Letter;

/// A point of the conversation at which the server says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    Greeting,
    StartTls,
    Login,
    Sender,
    Recipient,
    Data,
    /// After the final dot.
    Message,
}

/// What the server does instead of what it usually says.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Says this, without the end of the line. After a 421 it closes the connection.
    Say(String),
    /// Says nothing, for an hour.
    Hang,
    /// Closes the connection.
    Close,
}

impl Reply {
    pub fn say(text: &str) -> Self {
        Self::Say(text.to_owned())
    }
}

/// When a connection is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    #[default]
    Never,
    StartTls,
    Implicit,
}

/// How the server is set up.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub encryption: Encryption,
    /// Who has to log in with what; nobody else gets through.
    pub login: Option<(String, String)>,
    /// The way to log in that is offered, PLAIN or LOGIN; empty: both.
    pub mechanism: &'static str,
}

#[derive(Default)]
struct Script {
    next: HashMap<Stage, VecDeque<Reply>>,
    next_for: HashMap<(String, Stage), VecDeque<Reply>>,
    otherwise: HashMap<Stage, Reply>,
    received: Vec<Letter>,
    connections: usize,
}

struct Shared {
    setup: Setup,
    acceptor: TlsAcceptor,
    script: Mutex<Script>,
}

impl Shared {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reply at a stage, if one was told.
    fn told(&self, stage: Stage, recipient: &str) -> Option<Reply> {
        let mut script = self.script();
        let for_recipient = script.next_for.get_mut(&(recipient.to_owned(), stage)).and_then(VecDeque::pop_front);
        let next = for_recipient.or_else(|| script.next.get_mut(&stage).and_then(VecDeque::pop_front));
        next.or_else(|| script.otherwise.get(&stage).cloned())
    }
}

/// The sink; it ends when dropped.
pub struct SmtpSink {
    address: SocketAddr,
    certificate: certificate::Certificate,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl SmtpSink {
    /// Takes everything until told otherwise.
    pub async fn start(setup: Setup) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let certificate = certificate::Certificate::make();
        let shared = Arc::new(Shared { setup, acceptor: certificate.acceptor(), script: Mutex::default() });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, certificate, shared, accepting }
    }

    /// For `SMTP_URL`, without user and password; `host` is 127.0.0.1 or localhost, which alone the certificate names.
    pub fn url(&self, host: &str) -> String {
        let scheme = if self.shared.setup.encryption == Encryption::Implicit { "smtps" } else { "smtp" };
        format!("{scheme}://{host}:{}", self.address.port())
    }

    /// The same with the user and password that it wants.
    pub fn url_with_login(&self, host: &str) -> String {
        let (user, password) = self.shared.setup.login.clone().expect("a login");
        self.url(host).replace("://", &format!("://{user}:{password}@"))
    }

    /// A file with the certificate that signed the server's.
    pub fn ca_file(&self) -> PathBuf {
        self.certificate.ca_file()
    }

    /// Has the next conversations answered so at a stage, one each, in order.
    pub fn then(&self, stage: Stage, replies: impl IntoIterator<Item = Reply>) {
        self.shared.script().next.entry(stage).or_default().extend(replies);
    }

    /// The same for mail to one recipient; from RCPT on.
    pub fn then_for(&self, recipient: &str, stage: Stage, replies: impl IntoIterator<Item = Reply>) {
        self.shared.script().next_for.entry((recipient.to_owned(), stage)).or_default().extend(replies);
    }

    /// Has all conversations answered so at a stage that `then` says nothing about; `None`: as usual.
    pub fn otherwise(&self, stage: Stage, reply: Option<Reply>) {
        let mut script = self.shared.script();
        match reply {
            Some(reply) => script.otherwise.insert(stage, reply),
            None => script.otherwise.remove(&stage),
        };
    }

    /// Every message so far whose final dot came, in order, whatever was said to it.
    pub fn received(&self) -> Vec<Letter> {
        self.shared.script().received.clone()
    }

    /// Those to one recipient.
    pub fn received_for(&self, recipient: &str) -> Vec<Letter> {
        self.received().into_iter().filter(|letter| letter.recipient == recipient).collect()
    }

    /// Waits for that many messages, and returns all that came.
    pub async fn wait_for(&self, count: usize) -> Vec<Letter> {
        wait::until(&format!("{count} e-mails"), async || {
            let received = self.received();
            (received.len() >= count).then_some(received)
        })
        .await
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.script().connections
    }

    /// Listens no more.
    pub async fn close(&mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for SmtpSink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        shared.script().connections += 1;
        tokio::spawn(serve(client, Arc::clone(&shared)));
    }
}

async fn serve(client: TcpStream, shared: Arc<Shared>) {
    // A client that goes away in the middle is no concern of the sink's.
    let _ = session::serve(client, &shared).await;
}
