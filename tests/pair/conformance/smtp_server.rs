//! What e-mail alone must do: encryption, logging in, headers, connections that are kept.

use std::{collections::BTreeMap, path::PathBuf};

use futures_util::future::join_all;
use p2phub_proto::notify::v1::{
    AttemptOutcome::{Ambiguous, Configuration, Content, Delivered, Transient},
    NotificationKind, NotificationState, RecipientContact,
};
use p2phub_tests::smtp::{
    Encryption, Reply, Setup, SmtpSink,
    Stage::{Greeting, Login, Message, Recipient, Sender, StartTls},
};

use super::{
    desk::{Desk, Ended, notice, plain},
    email::{Email, address},
    stand::Stand,
};

fn contact(number: usize) -> RecipientContact {
    RecipientContact { channel: "email".to_owned(), address: address(number) }
}

/// How first attempts end, each with a configuration of its own.
async fn attempts(configurations: impl IntoIterator<Item = (Option<String>, Option<PathBuf>)>) -> Vec<Ended> {
    let attempts = configurations.into_iter().map(async |(url, ca_file)| {
        let desk = Desk::open(move |config| {
            config.smtp_url.clone_from(&url);
            config.smtp_ca_file.clone_from(&ca_file);
        })
        .await;
        let event = desk.ask(vec![plain("someone", vec![contact(0)])]).await;
        let mut attempts = desk.first_attempts(&event).await;
        desk.close().await;
        attempts.remove("someone").expect("an attempt")
    });
    join_all(attempts).await
}

fn login(mechanism: &'static str) -> Setup {
    Setup { login: Some(("me".to_owned(), "secret".to_owned())), mechanism, ..Setup::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_is_encrypted_as_configured_and_only_for_a_server_that_is_trusted() {
    let implicit = SmtpSink::start(Setup { encryption: Encryption::Implicit, ..Setup::default() }).await;
    let start_tls = SmtpSink::start(Setup { encryption: Encryption::StartTls, ..login("PLAIN") }).await;
    let never = SmtpSink::start(Setup::default()).await;
    let delivered = (Delivered, "");
    let refused = |reason| (Configuration, reason);
    let required = |url: String| format!("{url}?tls=required");
    let table = [
        ("implicit", &implicit, implicit.url("localhost"), true, delivered),
        ("implicit, not trusted", &implicit, implicit.url("localhost"), false, refused("SMTP_TLS_FAILED")),
        ("implicit, by another name", &implicit, implicit.url("127.0.0.1"), true, refused("SMTP_TLS_FAILED")),
        ("STARTTLS", &start_tls, required(start_tls.url_with_login("localhost")), true, delivered),
        ("STARTTLS as offered", &start_tls, start_tls.url_with_login("localhost"), true, delivered),
        ("STARTTLS, not trusted", &start_tls, start_tls.url_with_login("localhost"), false, refused("SMTP_TLS_FAILED")),
        ("STARTTLS missing", &never, required(never.url("localhost")), true, refused("SMTP_STARTTLS_MISSING")),
        ("TLS missing", &never, never.url("localhost").replace("smtp:", "smtps:"), true, refused("SMTP_TLS_FAILED")),
        ("nothing offered", &never, never.url("localhost"), true, delivered),
    ];
    let configurations = table.iter().map(|(_, sink, url, is_trusted, _)| {
        let ca_file = is_trusted.then(|| sink.ca_file());
        (Some(url.clone()), ca_file)
    });
    let ended = attempts(configurations).await;
    for ((what, .., expected), (outcome, reason)) in table.iter().zip(&ended) {
        assert_eq!(&(*outcome, reason.as_str()), expected, "{what}");
    }
    for (sink, letters, are_encrypted) in [(&implicit, 1, true), (&start_tls, 2, true), (&never, 1, false)] {
        assert_eq!(sink.received().len(), letters);
        assert!(sink.received().iter().all(|letter| letter.is_encrypted == are_encrypted));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_logs_in_and_a_refused_password_is_our_set_up() {
    let (plain, old) = (SmtpSink::start(login("PLAIN")).await, SmtpSink::start(login("LOGIN")).await);
    let strange = SmtpSink::start(login("CRAM-MD5")).await;
    let table = [
        ("PLAIN", plain.url_with_login("127.0.0.1"), (Delivered, "")),
        ("LOGIN", old.url_with_login("127.0.0.1"), (Delivered, "")),
        ("wrong", plain.url_with_login("127.0.0.1").replace("secret", "wrong"), (Configuration, "SMTP_535_5_7_8")),
        ("nobody", plain.url("127.0.0.1"), (Configuration, "SMTP_530_5_7_0")),
        ("no way", strange.url_with_login("127.0.0.1"), (Configuration, "SMTP_AUTH_MISSING")),
    ];
    let ended = attempts(table.iter().map(|(_, url, _)| (Some(url.clone()), None))).await;
    for ((what, _, expected), (outcome, reason)) in table.iter().zip(&ended) {
        assert_eq!(&(*outcome, reason.as_str()), expected, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_that_break_off_are_told_apart_and_cost_no_other() {
    // Together: what is silent takes its time.
    tokio::join!(every_answer_before_the_recipient_is_on_record(), connections_are_kept());
}

/// Before RCPT nobody knows who a message is for: the answers are dealt out among as many messages.
async fn every_answer_before_the_recipient_is_on_record() {
    let setup = Setup { encryption: Encryption::StartTls, ..login("PLAIN") };
    let sink = SmtpSink::start(setup).await;
    let table = [
        (Greeting, Reply::say("421 4.3.2 too many connections"), Transient, "SMTP_421_4_3_2"),
        (Greeting, Reply::say("554 not you"), Configuration, "SMTP_554"),
        (Greeting, Reply::Close, Transient, "CONNECT_FAILED"),
        (Greeting, Reply::Hang, Transient, "TIMEOUT"),
        (StartTls, Reply::say("454 4.7.0 not now"), Transient, "SMTP_454_4_7_0"),
        (Login, Reply::say("454 4.7.0 not now"), Transient, "SMTP_454_4_7_0"),
        (Login, Reply::say("534 5.7.9 too weak"), Configuration, "SMTP_534_5_7_9"),
        (Login, Reply::Close, Transient, "CONNECTION_LOST"),
        (Sender, Reply::say("421 closing"), Transient, "SMTP_421"),
        (Sender, Reply::say("451 try again"), Transient, "SMTP_451"),
        (Sender, Reply::say("550 5.7.1 not that sender"), Configuration, "SMTP_550_5_7_1"),
        (Sender, Reply::say("552 too big"), Content, "SMTP_552"),
        (Sender, Reply::say("553 5.1.8 no such domain"), Configuration, "SMTP_553_5_1_8"),
        (Sender, Reply::Hang, Transient, "TIMEOUT"),
        (Sender, Reply::Close, Transient, "CONNECTION_LOST"),
    ];
    let (url, ca_file) = (sink.url_with_login("localhost"), sink.ca_file());
    let desk = Desk::open(move |config| {
        config.smtp_url = Some(url.clone());
        config.smtp_ca_file = Some(ca_file.clone());
    })
    .await;
    let mut expected = BTreeMap::new();
    let count = table.len();
    for (stage, reply, outcome, reason) in table {
        sink.then(stage, [reply]);
        *expected.entry(format!("{outcome:?} {reason}")).or_insert(0) += 1;
    }
    let requests = (0..count).map(|number| plain(&number.to_string(), vec![contact(number)]));
    let event = desk.ask(requests.collect()).await;
    let mut seen = BTreeMap::new();
    for (outcome, reason) in desk.first_attempts(&event).await.into_values() {
        *seen.entry(format!("{outcome:?} {reason}")).or_insert(0) += 1;
    }
    assert_eq!(seen, expected);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_has_a_sender_a_subject_and_a_way_out_that_nobody_can_add_to() {
    let stand = Email::start().await;
    let desk = Desk::open(stand.configure()).await;
    let said =
        ["Привет, мир", "a\r\nBcc: evil@example.org", "a\nBcc: evil@example.org\n\nbody", "a\rBcc: evil@example.org"];
    let requests = said.iter().enumerate().map(|(number, said)| {
        let arguments = [("text", *said), ("subject", *said)];
        let mut request =
            notice(NotificationKind::OperatorBroadcast, &number.to_string(), &arguments, vec![contact(number)]);
        request.locale = "ru".to_owned();
        request
    });
    let event = desk.ask(requests.collect()).await;
    for (recipient_id, notification) in desk.settled(&event).await {
        assert_eq!(notification.state(), NotificationState::Delivered);
        let number: usize = recipient_id.parse().expect("a number");
        let letters = stand.0.received_for(&address(number));
        let [letter] = letters.as_slice() else { panic!("one letter: {letters:?}") };
        assert_eq!(letter.sender, "no-reply@mail.example");
        let names: Vec<_> = letter.headers.iter().map(|(name, _)| name.as_str()).collect();
        let expected = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "List-Unsubscribe"];
        assert_eq!(names[..7], expected);
        assert_eq!(names[7..], ["List-Unsubscribe-Post", "MIME-Version", "Content-Type"]);
        assert_eq!(letter.header("From"), "P2PHub <no-reply@mail.example>");
        assert_eq!(letter.header("To"), address(number));
        let plain_subject = said[number].replace(['\r', '\n'], " ");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(letter.header("Subject")), words(&plain_subject));
        assert_eq!(letter.header("Message-ID"), format!("<{}@mail.example>", notification.notification_id));
        assert_eq!(letter.header("Auto-Submitted"), "auto-generated");
        assert_eq!(letter.header("List-Unsubscribe-Post"), "List-Unsubscribe=One-Click");
        let way_out = letter.header("List-Unsubscribe");
        let (https, mailto) = way_out.split_once(", ").expect("two ways");
        let token = https.strip_prefix("<https://app.example/unsubscribe?token=").expect("a URL").trim_end_matches('>');
        assert!(token.len() > 20, "{token}");
        assert_eq!(mailto, format!("<mailto:no-reply@mail.example?subject=unsubscribe%20{token}>"));
        assert!(letter.raw.is_ascii() && letter.raw.lines().all(|line| line.len() <= 998));
    }
    desk.close().await;
}

/// A stale or broken one costs no attempt.
async fn connections_are_kept() {
    let stand = Email::start().await;
    let desk = Desk::open(stand.configure()).await;
    let sink = &stand.0;
    let mut number = 0..;
    let mut next = || number.next().expect("a number");
    let one = async |desk: &Desk, number: usize| {
        let event = desk.ask(vec![plain("someone", vec![contact(number)])]).await;
        desk.first_attempts(&event).await.remove("someone").expect("an attempt")
    };
    let delivered = (Delivered, String::new());

    for _ in 0..5 {
        assert_eq!(one(&desk, next()).await, delivered);
    }
    assert_eq!(sink.connections(), 1);
    // A refusal of one recipient is none of the next one's.
    let refused = next();
    sink.then_for(&address(refused), Recipient, [Reply::say("550 5.1.1 no such user")]);
    assert_eq!(one(&desk, refused).await.1, "SMTP_550_5_1_1");
    assert_eq!(one(&desk, next()).await, delivered);
    assert_eq!(sink.connections(), 1);
    // The server closes it while it is idle: that is noticed only when it is used.
    sink.then(Sender, [Reply::Close]);
    assert_eq!(one(&desk, next()).await, delivered);
    sink.then(Sender, [Reply::say("421 4.4.2 idle for too long")]);
    assert_eq!(one(&desk, next()).await, delivered);
    assert_eq!(sink.connections(), 3);
    // One that was given up in the middle of a conversation is never used again.
    let silent = next();
    sink.then_for(&address(silent), Message, [Reply::Hang]);
    assert_eq!(one(&desk, silent).await, (Ambiguous, "TIMEOUT".to_owned()));
    assert_eq!(one(&desk, next()).await, delivered);
    desk.close().await;
}
