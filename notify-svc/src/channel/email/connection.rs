//! Connections to the SMTP server, and the conversation over them.
//!
//! The library speaks SMTP, but its own pool is not used: it doesn't tell how far a conversation came, on which hangs whether a
//! message can have arrived, and it takes back connections in the middle of one when a send is cut short.

use std::{
    error::Error as _,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lettre::transport::smtp::{
    Error,
    authentication::{Credentials, DEFAULT_MECHANISMS},
    client::{AsyncSmtpConnection, Tls},
    commands::{Data, Mail, Rcpt, Rset},
    extension::ClientId,
    response::{Response, Severity},
};
use notify_domain::{
    answer::smtp::{Loss, Refusal, Stage, classify, unanswered},
    delivery::Outcome,
};
use tokio::time::{Instant, timeout};

use super::letter::Letter;

/// To connect to one address of the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// For the whole exchange; shorter than what a worker allows a send.
const TIMEOUT: Duration = Duration::from_secs(9);
/// How long a connection is kept for the next message; servers wait for minutes (RFC 5321, section 4.5.3.2.7), what is between
/// may forget sooner.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Connections kept.
const IDLE_COUNT_MAX: usize = 16;

/// Where mail is handed in.
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Tls,
    pub(super) hello: ClientId,
    pub(super) credentials: Option<Credentials>,
}

/// A connection that waits for the next message.
struct Idle {
    connection: AsyncSmtpConnection,
    since: Instant,
    /// A transaction was begun and refused: it has to be reset first.
    is_begun: bool,
}

/// All connections to one server.
pub(super) struct Connections {
    server: Server,
    /// The last used comes first.
    idle: Mutex<Vec<Idle>>,
}

/// Why a conversation ended before its end.
enum Trouble {
    Refused { code: u16, text: String },
    Unanswered(Loss),
}

impl Trouble {
    fn outcome(&self, stage: Stage) -> Outcome {
        match self {
            Self::Refused { code, text } => classify(stage, Refusal { code: *code, text }),
            Self::Unanswered(loss) => unanswered(stage, *loss),
        }
    }

    /// Whether the server, or what is between, has closed the connection (421: RFC 5321, section 3.8).
    fn ends_connection(&self) -> bool {
        !matches!(self, Self::Refused { code, .. } if *code != 421)
    }
}

impl Connections {
    pub(super) fn new(server: Server) -> Self {
        Self { server, idle: Mutex::default() }
    }

    /// Hands a message in, once.
    pub(super) async fn send(&self, letter: &Letter) -> Outcome {
        let mut stage = Stage::Opening;
        // Cut short, it takes its connection along: nobody else gets one in the middle of a conversation.
        match timeout(TIMEOUT, self.hand_in(letter, &mut stage)).await {
            Ok(Ok(())) => Outcome::DELIVERED,
            Ok(Err(trouble)) => trouble.outcome(stage),
            Err(_) => unanswered(stage, Loss::Timeout),
        }
    }

    async fn hand_in(&self, letter: &Letter, stage: &mut Stage) -> Result<(), Trouble> {
        if let Some(mut idle) = self.take() {
            *stage = Stage::Sender;
            let reset = if idle.is_begun { command(&mut idle.connection, Rset).await.map(drop) } else { Ok(()) };
            let ended = match reset {
                Ok(()) => converse(&mut idle.connection, letter, stage).await,
                Err(trouble) => Err(trouble),
            };
            // Closed while nobody looked; nothing has been said yet, so it is said again over a new one.
            let is_stale = *stage == Stage::Sender && ended.as_ref().is_err_and(Trouble::ends_connection);
            if !is_stale {
                return self.put_back(idle.connection, ended);
            }
            self.lock().clear();
        }
        *stage = Stage::Opening;
        let mut connection = self.open(stage).await?;
        let ended = converse(&mut connection, letter, stage).await;
        self.put_back(connection, ended)
    }

    async fn open(&self, stage: &mut Stage) -> Result<AsyncSmtpConnection, Trouble> {
        let Server { host, port, tls, hello, credentials } = &self.server;
        let address = (host.as_str(), *port);
        let implicit = if let Tls::Wrapper(parameters) = tls { Some(parameters.clone()) } else { None };
        let connecting = AsyncSmtpConnection::connect_tokio1(address, Some(CONNECT_TIMEOUT), hello, implicit, None);
        let mut connection = connecting.await.map_err(opening_trouble)?;
        match tls {
            Tls::Required(_) if !connection.can_starttls() => {
                return Err(Trouble::Unanswered(Loss::Unsupported("SMTP_STARTTLS_MISSING")));
            }
            Tls::Required(parameters) | Tls::Opportunistic(parameters) if connection.can_starttls() => {
                connection.starttls(parameters.clone(), hello).await.map_err(opening_trouble)?;
            }
            _ => {}
        }
        if let Some(credentials) = credentials {
            *stage = Stage::Login;
            if connection.server_info().get_auth_mechanism(DEFAULT_MECHANISMS).is_none() {
                return Err(Trouble::Unanswered(Loss::Unsupported("SMTP_AUTH_MISSING")));
            }
            connection.auth(DEFAULT_MECHANISMS, credentials).await.map_err(trouble)?;
        }
        Ok(connection)
    }

    fn take(&self) -> Option<Idle> {
        let mut idle = self.lock();
        idle.retain(|one| one.since.elapsed() < IDLE_MAX);
        idle.pop()
    }

    fn put_back(&self, connection: AsyncSmtpConnection, ended: Result<(), Trouble>) -> Result<(), Trouble> {
        let mut idle = self.lock();
        if idle.len() < IDLE_COUNT_MAX && !ended.as_ref().is_err_and(Trouble::ends_connection) {
            idle.push(Idle { connection, since: Instant::now(), is_begun: ended.is_err() });
        }
        ended
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One mail transaction (RFC 5321, section 3.3); `stage` tells how far it came.
async fn converse(connection: &mut AsyncSmtpConnection, letter: &Letter, stage: &mut Stage) -> Result<(), Trouble> {
    *stage = Stage::Sender;
    command(connection, Mail::new(Some(letter.from.clone()), Vec::new())).await?;
    *stage = Stage::Recipient;
    command(connection, Rcpt::new(letter.to.clone(), Vec::new())).await?;
    *stage = Stage::Data;
    expect(command(connection, Data).await?, Severity::PositiveIntermediate)?;
    *stage = Stage::Message;
    expect(connection.message(&letter.text).await.map_err(trouble)?, Severity::PositiveCompletion)
}

async fn command(connection: &mut AsyncSmtpConnection, command: impl std::fmt::Display) -> Result<Response, Trouble> {
    connection.command(command).await.map_err(trouble)
}

fn expect(answer: Response, severity: Severity) -> Result<(), Trouble> {
    let is_expected = answer.code().severity == severity;
    is_expected.then_some(()).ok_or(Trouble::Unanswered(Loss::Unreadable))
}

/// What went wrong before the first command. The library doesn't tell a connection that was refused from one that was lost
/// soon after.
fn opening_trouble(error: Error) -> Trouble {
    if error.is_tls() || is_from_tls(&error) {
        return Trouble::Unanswered(Loss::Tls);
    }
    match trouble(error) {
        Trouble::Unanswered(Loss::Lost) => Trouble::Unanswered(Loss::Unreachable),
        other => other,
    }
}

fn trouble(error: Error) -> Trouble {
    if let Some(code) = error.status() {
        let text = error.source().map(ToString::to_string).unwrap_or_default();
        return Trouble::Refused { code: code.into(), text };
    }
    Trouble::Unanswered(if error.is_timeout() {
        Loss::Timeout
    } else if error.is_response() && !is_cut_off(&error) {
        Loss::Unreadable
    } else {
        Loss::Lost
    })
}

/// The library counts the end of the stream as an answer that can't be read; only its text tells.
fn is_cut_off(error: &Error) -> bool {
    error.source().is_some_and(|source| source.to_string() == "incomplete response")
}

/// TLS's own errors come inside of I/O errors.
fn is_from_tls(error: &Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        source = error.source();
    }
    false
}
