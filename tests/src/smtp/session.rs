//! One connection to the sink (RFC 5321, with STARTTLS after RFC 3207 and AUTH after RFC 4954).

use std::{io, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::{Encryption, Letter, Reply, Shared, Stage};

/// What the client has done so far.
#[derive(Default)]
struct Session {
    is_encrypted: bool,
    is_known: bool,
    sender: String,
    recipient: String,
}

pub(super) async fn serve(client: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut session = Session { is_encrypted: shared.setup.encryption == Encryption::Implicit, ..Session::default() };
    if session.is_encrypted {
        let mut client = BufReader::new(shared.acceptor.accept(client).await?);
        greet(&mut client, shared).await?;
        converse(&mut client, shared, &mut session).await?;
        return Ok(());
    }
    let mut client = BufReader::new(client);
    greet(&mut client, shared).await?;
    if converse(&mut client, shared, &mut session).await? == End::StartTls {
        let mut client = BufReader::new(shared.acceptor.accept(client.into_inner()).await?);
        session = Session { is_encrypted: true, ..Session::default() };
        converse(&mut client, shared, &mut session).await?;
    }
    Ok(())
}

/// How a conversation ends.
#[derive(PartialEq)]
enum End {
    Closed,
    StartTls,
}

async fn greet(client: &mut (impl AsyncWrite + Unpin), shared: &Shared) -> io::Result<()> {
    answer(client, shared, Stage::Greeting, "", "220 sink.example ready").await.map(drop)
}

async fn converse(
    client: &mut (impl AsyncBufReadExt + AsyncWrite + Unpin),
    shared: &Shared,
    session: &mut Session,
) -> io::Result<End> {
    while let Some(line) = read_line(client).await? {
        let (verb, rest) = line.split_once(' ').unwrap_or((line.as_str(), ""));
        let recipient = session.recipient.clone();
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" | "HELO" => write(client, &hello(shared, session)).await?,
            "STARTTLS" => {
                if answer(client, shared, Stage::StartTls, "", "220 go on").await?.starts_with('2') {
                    return Ok(End::StartTls);
                }
            }
            "AUTH" => {
                let said = if is_known(client, shared, rest).await? { "235 welcome" } else { "535 5.7.8 who are you" };
                session.is_known = answer(client, shared, Stage::Login, "", said).await?.starts_with('2');
            }
            "MAIL" if shared.setup.login.is_some() && !session.is_known => {
                write(client, "530 5.7.0 log in first").await?;
            }
            "MAIL" => {
                session.sender = path(rest);
                answer(client, shared, Stage::Sender, "", "250 ok").await?;
            }
            "RCPT" => {
                let recipient = path(rest);
                if answer(client, shared, Stage::Recipient, &recipient, "250 ok").await?.starts_with('2') {
                    session.recipient = recipient;
                }
            }
            "DATA" => {
                if answer(client, shared, Stage::Data, &recipient, "354 go on").await?.starts_with('3') {
                    let text = read_message(client).await?;
                    let letter = Letter::read(&session.sender, &recipient, session.is_encrypted, text);
                    shared.script().received.push(letter);
                    session.recipient.clear();
                    answer(client, shared, Stage::Message, &recipient, "250 2.0.0 taken").await?;
                }
            }
            "RSET" => {
                session.recipient.clear();
                write(client, "250 ok").await?;
            }
            "NOOP" => write(client, "250 ok").await?,
            "QUIT" => {
                write(client, "221 bye").await?;
                return Ok(End::Closed);
            }
            _ => write(client, "500 5.5.1 what").await?,
        }
    }
    Ok(End::Closed)
}

fn hello(shared: &Shared, session: &Session) -> String {
    let mut lines = vec!["sink.example".to_owned(), "ENHANCEDSTATUSCODES".to_owned()];
    if shared.setup.encryption == Encryption::StartTls && !session.is_encrypted {
        lines.push("STARTTLS".to_owned());
    }
    if shared.setup.login.is_some() {
        let mechanisms = if shared.setup.mechanism.is_empty() { "PLAIN LOGIN" } else { shared.setup.mechanism };
        lines.push(format!("AUTH {mechanisms}"));
    }
    let last = lines.pop().unwrap_or_default();
    lines.into_iter().map(|line| format!("250-{line}\r\n")).collect::<String>() + "250 " + &last
}

async fn is_known(
    client: &mut (impl AsyncBufReadExt + AsyncWrite + Unpin),
    shared: &Shared,
    rest: &str,
) -> io::Result<bool> {
    let (mechanism, first) = rest.split_once(' ').unwrap_or((rest, ""));
    let given = match mechanism.to_ascii_uppercase().as_str() {
        "PLAIN" => decode(first).split('\0').skip(1).map(str::to_owned).collect(),
        "LOGIN" => {
            write(client, "334 VXNlcm5hbWU6").await?;
            let user = decode(&read_line(client).await?.unwrap_or_default());
            write(client, "334 UGFzc3dvcmQ6").await?;
            vec![user, decode(&read_line(client).await?.unwrap_or_default())]
        }
        _ => Vec::new(),
    };
    Ok(shared.setup.login.as_ref().is_some_and(|(user, password)| given == [user.clone(), password.clone()]))
}

fn decode(text: &str) -> String {
    BASE64_STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// What stands between the angle brackets.
fn path(rest: &str) -> String {
    let path = rest.split_once('<').and_then(|(_, path)| path.rsplit_once('>'));
    path.map(|(path, _)| path.to_owned()).unwrap_or_default()
}

/// Says what was told for this, else the usual; what it said.
async fn answer(
    client: &mut (impl AsyncWrite + Unpin),
    shared: &Shared,
    stage: Stage,
    recipient: &str,
    usual: &str,
) -> io::Result<String> {
    match shared.told(stage, recipient).unwrap_or_else(|| Reply::say(usual)) {
        Reply::Say(text) => {
            write(client, &text).await?;
            if text.starts_with("421") { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(text) }
        }
        Reply::Close => Err(io::ErrorKind::ConnectionAborted.into()),
        Reply::Hang => {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}

async fn write(client: &mut (impl AsyncWrite + Unpin), text: &str) -> io::Result<()> {
    client.write_all(format!("{text}\r\n").as_bytes()).await?;
    client.flush().await
}

async fn read_line(client: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Option<String>> {
    let mut line = String::new();
    let length = client.read_line(&mut line).await?;
    Ok((length > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Up to the final dot, with dots at the beginnings of lines unstuffed. Lines end with CR LF and nothing else.
async fn read_message(client: &mut (impl AsyncRead + AsyncBufReadExt + Unpin)) -> io::Result<String> {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        if client.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == ".\r\n" {
            return Ok(text);
        }
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}
