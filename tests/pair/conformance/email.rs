//! A stand-in for the SMTP server.

use notify_svc::Config;
use p2phub_proto::notify::v1::AttemptOutcome::{self, Address, Configuration, Content, Delivered, Transient};
use p2phub_tests::smtp::{
    Reply, Setup, SmtpSink,
    Stage::{self, Data, Message, Recipient},
};

use super::stand::{Received, Row, Stand};

pub(super) struct Email(pub(super) SmtpSink);

/// Each contact has a domain of its own.
pub(super) fn address(number: usize) -> String {
    format!("someone@d{number}.example")
}

impl Stand for Email {
    const CHANNEL: &'static str = "email";

    type Reply = (Stage, Reply);

    async fn start() -> Self {
        Self(SmtpSink::start(Setup::default()).await)
    }

    fn configure(&self) -> impl Fn(&mut Config) + Send + Sync + 'static {
        let url = self.0.url("127.0.0.1");
        move |config| {
            config.smtp_url = Some(url.clone());
            config.smtp_from = "P2PHub <no-reply@mail.example>".to_owned();
            config.unsubscribe_url = Some("https://app.example/unsubscribe".to_owned());
        }
    }

    fn address(&self, number: usize) -> String {
        address(number)
    }

    fn play(&self, number: usize, (stage, reply): (Stage, Reply)) {
        self.0.then_for(&address(number), stage, [reply]);
    }

    fn received(&self, number: usize) -> Vec<Received> {
        let letters = self.0.received_for(&address(number)).into_iter();
        letters
            .map(|letter| Received {
                identity: letter.header("Message-ID").to_owned(),
                text: letter.text.clone(),
                whole: letter.html.clone(),
            })
            .inspect(|received| assert!(received.identity.ends_with("@mail.example>"), "{}", received.identity))
            .collect()
    }

    async fn close(&mut self) {
        self.0.close().await;
    }

    /// From RCPT on, where it is known who it is for; what comes before is played elsewhere.
    fn table() -> Vec<Row<(Stage, Reply)>> {
        let rows: [(Stage, &str, AttemptOutcome, &str); 32] = [
            (Recipient, "250 2.1.5 fine", Delivered, ""),
            (Recipient, "251 forwarded", Delivered, ""),
            (Message, "250-2.0.0 taken\r\n250 2.0.0 as 12345", Delivered, ""),
            (Recipient, "421 4.3.2 shutting down", Transient, "SMTP_421_4_3_2"),
            (Recipient, "450 4.2.1 greylisted", Transient, "SMTP_450_4_2_1"),
            (Recipient, "450-4.2.0 greylisted,\r\n450 4.2.0 come back", Transient, "SMTP_450_4_2_0"),
            (Recipient, "451 try again", Transient, "SMTP_451"),
            (Recipient, "452 4.2.2 full for now", Transient, "SMTP_452_4_2_2"),
            (Recipient, "501 5.1.3 bad address", Address, "SMTP_501_5_1_3"),
            (Recipient, "503 bad sequence", Configuration, "SMTP_503"),
            (Recipient, "530 5.7.0 log in first", Configuration, "SMTP_530_5_7_0"),
            (Recipient, "550 no such user", Address, "SMTP_550"),
            (Recipient, "550 5.1.1 no such user", Address, "SMTP_550_5_1_1"),
            (Recipient, "550 5.2.1 disabled", Address, "SMTP_550_5_2_1"),
            (Recipient, "550 5.7.1 refused by policy", Content, "SMTP_550_5_7_1"),
            (Recipient, "551 not local", Address, "SMTP_551"),
            (Recipient, "552 5.2.2 full", Content, "SMTP_552_5_2_2"),
            (Recipient, "553 not allowed", Address, "SMTP_553"),
            (Recipient, "554 5.7.1 no relaying", Content, "SMTP_554_5_7_1"),
            (Recipient, "556 5.1.10 null MX", Address, "SMTP_556_5_1_10"),
            (Data, "421 closing", Transient, "SMTP_421"),
            (Data, "451 4.3.0 try again", Transient, "SMTP_451_4_3_0"),
            (Data, "554 5.5.1 no valid recipients", Content, "SMTP_554_5_5_1"),
            (Data, "250 what", Transient, "SMTP_ANSWER_UNREADABLE"),
            (Message, "421 4.7.0 not now", Transient, "SMTP_421_4_7_0"),
            (Message, "452 4.3.1 disk full", Transient, "SMTP_452_4_3_1"),
            (Message, "550 5.1.1 no such user after all", Address, "SMTP_550_5_1_1"),
            (Message, "550 spam", Content, "SMTP_550"),
            (Message, "552 5.3.4 too big", Content, "SMTP_552_5_3_4"),
            (Message, "554 5.6.0 can't read that", Content, "SMTP_554_5_6_0"),
            (Message, "354 more", AttemptOutcome::Ambiguous, "SMTP_ANSWER_UNREADABLE"),
            (Message, "hello", AttemptOutcome::Ambiguous, "SMTP_ANSWER_UNREADABLE"),
        ];
        let mut rows: Vec<_> = rows
            .into_iter()
            .map(|(stage, text, outcome, reason)| {
                Row::new(format!("{stage:?}: {text}"), (stage, Reply::say(text)), outcome, reason)
            })
            .collect();
        for stage in [Recipient, Data] {
            // Nothing of the message was handed over.
            rows.push(Row::new(format!("{stage:?}: silence"), (stage, Reply::Hang), Transient, "TIMEOUT"));
            rows.push(Row::new(format!("{stage:?}: closed"), (stage, Reply::Close), Transient, "CONNECTION_LOST"));
        }
        rows
    }

    fn hang() -> (Stage, Reply) {
        (Message, Reply::Hang)
    }

    fn lost() -> (Stage, Reply) {
        (Message, Reply::Close)
    }

    fn busy() -> (Stage, Reply) {
        (Message, Reply::say("451 4.3.0 try again"))
    }

    fn gone() -> ((Stage, Reply), &'static str) {
        ((Recipient, Reply::say("550 5.1.1 no such user")), "SMTP_550_5_1_1")
    }

    fn malformed_addresses() -> &'static [&'static str] {
        &["someone", "a@", "@b.example", "a@b@c", "a@b.example\r\nBcc: evil@example.org", "A <a@b.example>"]
    }

    fn check_carried(received: &Received, text: &str) {
        let text = text.replace("\r\n", "\n");
        assert_eq!(received.text, text);
        let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let escaped = escaped.replace('"', "&quot;").replace('\'', "&#39;").replace('\n', "<br>\n");
        assert!(received.whole.contains(&format!(">{escaped}</p>")), "{}", received.whole);
    }
}
