//! What an answer of an SMTP server means.

use crate::{
    delivery::Outcome,
    gate::Health,
    state::OutcomeClass::{self, Address, Ambiguous, Configuration, Content, Transient},
};

/// How far the conversation had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Connecting, the greeting, EHLO and STARTTLS.
    Opening,
    /// AUTH.
    Login,
    /// MAIL: the sender.
    Sender,
    /// RCPT: the recipient.
    Recipient,
    /// DATA, before any of the message is sent.
    Data,
    /// The message, up to the answer to its final dot.
    Message,
}

/// A refusal: a reply of the 4xx or 5xx kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// The reply's code.
    pub code: u16,
    /// Its text, which may begin with an enhanced status code.
    pub text: &'a str,
}

/// What a refusal means.
///
/// Sources: RFC 5321 (sections 4.2.1 for 4yz and 5yz, 4.2.3 and 4.3.2 for the codes and where they may come; 550 in answer to
/// RCPT means the mailbox, in answer to the message a policy), RFC 3463 and its registry for enhanced codes (x.1 addressing, x.2
/// mailbox, x.6 media, x.7 policy), RFC 4954 for AUTH (432, 530, 534, 535, 538), RFC 7504 for 521 and 556. An enhanced code
/// says more than the plain one, and is heard first. What is said to MAIL can't be the recipient's fault. A full mailbox (5.2.2)
/// is given up here and now, but it is no reason never to write there again.
///
/// A server that closes the channel (421), or puts off whoever opens a session, logs in or names the sender, can't work for
/// anybody just now. A recipient or a message that is put off is a matter of its own: greylisting, a full mailbox.
pub fn classify(stage: Stage, refusal: Refusal<'_>) -> Outcome {
    let enhanced = enhanced(refusal.text).filter(|code| u16::from(code[0]) == refusal.code / 100);
    let class = match refusal.code {
        432 => Configuration,
        400..=499 => Transient,
        530 | 534 | 535 | 538 => Configuration,
        500..=599 => match stage {
            Stage::Opening | Stage::Login => Configuration,
            Stage::Sender => {
                if refusal.code == 552 {
                    Content
                } else {
                    Configuration
                }
            }
            Stage::Recipient => enhanced.and_then(by_enhanced).unwrap_or_else(|| of_recipient(refusal.code)),
            Stage::Data | Stage::Message => enhanced.and_then(by_enhanced).unwrap_or_else(|| of_message(refusal.code)),
        },
        _ => return unanswered(stage, Loss::Unreadable),
    };
    let outcome = Outcome::new(class, reason(refusal.code, enhanced));
    let is_server = refusal.code == 421 || matches!(stage, Stage::Opening | Stage::Login | Stage::Sender);
    if class == Transient && is_server { outcome.telling(Health::Failing) } else { outcome }
}

/// The enhanced codes that settle the matter (RFC 3463, section 3, and the IANA registry of enhanced status codes).
fn by_enhanced([_, subject, detail]: [u8; 3]) -> Option<OutcomeClass> {
    match (subject, detail) {
        // The sender's address or system.
        (1, 7 | 8) => Some(Configuration),
        (1, _) | (2, 1) => Some(Address),
        // Mailbox full, message too big for it.
        (2, 2 | 3) => Some(Content),
        // Message too big for the system.
        (3, 4) => Some(Content),
        (6 | 7, _) => Some(Content),
        _ => None,
    }
}

fn of_recipient(code: u16) -> OutcomeClass {
    match code {
        // 501: RCPT has no other argument than the address.
        501 | 550 | 551 | 553 | 556 => Address,
        500..=549 | 555 => Configuration,
        _ => Content,
    }
}

fn of_message(code: u16) -> OutcomeClass {
    match code {
        // 503: the server thinks that MAIL or RCPT are missing.
        500..=504 => Configuration,
        551 | 553 | 556 => Address,
        _ => Content,
    }
}

/// Why no answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// No connection.
    Unreachable,
    /// TLS failed: no common version, or a certificate that isn't trusted.
    Tls,
    /// The server lacks what the configuration demands: STARTTLS, or a way to log in.
    Unsupported(&'static str),
    /// It took too long.
    Timeout,
    /// The connection broke off.
    Lost,
    /// The answer makes no sense.
    Unreadable,
}

/// What it means that no answer came.
///
/// Source: RFC 5321, sections 4.1.1.4 and 4.5.3.2.6: from the final dot on the server answers for the message; whoever loses the
/// connection then can't know. Before it nothing has been taken.
pub fn unanswered(stage: Stage, loss: Loss) -> Outcome {
    let unknown = if stage == Stage::Message { Ambiguous } else { Transient };
    match loss {
        Loss::Unreachable => Outcome::new(Transient, "CONNECT_FAILED"),
        Loss::Tls => Outcome::new(Configuration, "SMTP_TLS_FAILED"),
        Loss::Unsupported(reason) => Outcome::new(Configuration, reason),
        Loss::Timeout => Outcome::new(unknown, "TIMEOUT"),
        Loss::Lost => Outcome::new(unknown, "CONNECTION_LOST"),
        Loss::Unreadable => Outcome::new(unknown, "SMTP_ANSWER_UNREADABLE"),
    }
}

/// `SMTP_550` or, with an enhanced code, `SMTP_550_5_1_1`.
fn reason(code: u16, enhanced: Option<[u8; 3]>) -> String {
    match enhanced {
        Some([class, subject, detail]) => format!("SMTP_{code}_{class}_{subject}_{detail}"),
        None => format!("SMTP_{code}"),
    }
}

/// The enhanced status code that a text begins with (RFC 2034, section 4).
fn enhanced(text: &str) -> Option<[u8; 3]> {
    let mut parts = text.split_ascii_whitespace().next()?.splitn(3, '.').map(str::parse);
    match (parts.next()?, parts.next()?, parts.next()?) {
        (Ok(class), Ok(subject), Ok(detail)) => Some([class, subject, detail]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        use Stage::{Data, Login, Message, Opening, Recipient, Sender};
        let table: [(Stage, u16, &str, OutcomeClass, &str); 47] = [
            (Opening, 421, "4.3.2 shutting down", Transient, "SMTP_421_4_3_2"),
            (Opening, 454, "TLS not available", Transient, "SMTP_454"),
            (Opening, 502, "no STARTTLS", Configuration, "SMTP_502"),
            (Opening, 521, "no mail here", Configuration, "SMTP_521"),
            (Opening, 554, "no service for you", Configuration, "SMTP_554"),
            (Login, 432, "4.7.12 a password transition is needed", Configuration, "SMTP_432_4_7_12"),
            (Login, 454, "4.7.0 temporary failure", Transient, "SMTP_454_4_7_0"),
            (Login, 534, "5.7.9 too weak", Configuration, "SMTP_534_5_7_9"),
            (Login, 535, "5.7.8 bad credentials", Configuration, "SMTP_535_5_7_8"),
            (Login, 538, "encryption required", Configuration, "SMTP_538"),
            (Login, 550, "", Configuration, "SMTP_550"),
            (Sender, 421, "", Transient, "SMTP_421"),
            (Sender, 451, "", Transient, "SMTP_451"),
            (Sender, 530, "5.7.0 authentication required", Configuration, "SMTP_530_5_7_0"),
            (Sender, 550, "not with that sender", Configuration, "SMTP_550"),
            (Sender, 552, "", Content, "SMTP_552"),
            (Sender, 553, "5.1.8 unknown domain", Configuration, "SMTP_553_5_1_8"),
            (Sender, 555, "", Configuration, "SMTP_555"),
            (Recipient, 421, "", Transient, "SMTP_421"),
            (Recipient, 450, "4.2.1 greylisted", Transient, "SMTP_450_4_2_1"),
            (Recipient, 451, "", Transient, "SMTP_451"),
            (Recipient, 452, "4.2.2 full", Transient, "SMTP_452_4_2_2"),
            (Recipient, 501, "", Address, "SMTP_501"),
            (Recipient, 503, "", Configuration, "SMTP_503"),
            (Recipient, 530, "", Configuration, "SMTP_530"),
            (Recipient, 550, "", Address, "SMTP_550"),
            (Recipient, 550, "5.1.1 no such user", Address, "SMTP_550_5_1_1"),
            (Recipient, 550, "5.4.1 access denied", Address, "SMTP_550_5_4_1"),
            (Recipient, 550, "5.7.1 refused by policy", Content, "SMTP_550_5_7_1"),
            (Recipient, 551, "not local", Address, "SMTP_551"),
            (Recipient, 552, "5.2.2 full", Content, "SMTP_552_5_2_2"),
            (Recipient, 553, "", Address, "SMTP_553"),
            (Recipient, 554, "", Content, "SMTP_554"),
            (Recipient, 554, "5.1.2 no such domain", Address, "SMTP_554_5_1_2"),
            (Recipient, 554, "5.2.1 mailbox disabled", Address, "SMTP_554_5_2_1"),
            (Recipient, 556, "5.1.10 null MX", Address, "SMTP_556_5_1_10"),
            (Data, 451, "", Transient, "SMTP_451"),
            (Data, 503, "", Configuration, "SMTP_503"),
            (Data, 554, "no valid recipients", Content, "SMTP_554"),
            (Message, 421, "", Transient, "SMTP_421"),
            (Message, 452, "4.3.1 disk full", Transient, "SMTP_452_4_3_1"),
            (Message, 550, "we think this is spam", Content, "SMTP_550"),
            (Message, 550, "5.1.1 no such user", Address, "SMTP_550_5_1_1"),
            (Message, 552, "5.3.4 too big", Content, "SMTP_552_5_3_4"),
            (Message, 554, "5.6.0 media", Content, "SMTP_554_5_6_0"),
            (Message, 554, "", Content, "SMTP_554"),
            (Message, 571, "5.7.1 policy", Content, "SMTP_571_5_7_1"),
        ];
        for (stage, code, text, class, reason) in table {
            let outcome = classify(stage, Refusal { code, text });
            assert_eq!((outcome.class, outcome.reason.as_ref()), (class, reason), "{stage:?} {code} {text}");
        }
    }

    #[test]
    fn a_server_that_puts_everybody_off_is_failing_and_one_that_puts_off_a_recipient_is_not() {
        use Health::{Alive, Failing, Refusing};
        use Stage::{Data, Login, Message, Opening, Recipient, Sender};
        for (stage, code, health) in [
            (Opening, 421, Failing),
            (Opening, 450, Failing),
            (Opening, 554, Refusing),
            (Login, 432, Refusing),
            (Login, 454, Failing),
            (Sender, 421, Failing),
            (Sender, 451, Failing),
            (Sender, 452, Failing),
            (Sender, 550, Refusing),
            (Sender, 552, Alive),
            (Recipient, 421, Failing),
            (Recipient, 450, Alive),
            (Recipient, 451, Alive),
            (Recipient, 550, Alive),
            (Data, 421, Failing),
            (Data, 451, Alive),
            (Message, 421, Failing),
            (Message, 451, Alive),
            (Message, 554, Alive),
        ] {
            assert_eq!(classify(stage, Refusal { code, text: "" }).health(), health, "{stage:?} {code}");
        }
    }

    #[test]
    fn only_after_the_message_can_it_have_arrived() {
        for stage in [Stage::Opening, Stage::Login, Stage::Sender, Stage::Recipient, Stage::Data, Stage::Message] {
            let unknown = if stage == Stage::Message { Ambiguous } else { Transient };
            for (loss, class, reason) in [
                (Loss::Unreachable, Transient, "CONNECT_FAILED"),
                (Loss::Tls, Configuration, "SMTP_TLS_FAILED"),
                (Loss::Unsupported("SMTP_AUTH_MISSING"), Configuration, "SMTP_AUTH_MISSING"),
                (Loss::Timeout, unknown, "TIMEOUT"),
                (Loss::Lost, unknown, "CONNECTION_LOST"),
                (Loss::Unreadable, unknown, "SMTP_ANSWER_UNREADABLE"),
            ] {
                assert_eq!(unanswered(stage, loss), Outcome::new(class, reason), "{stage:?} {loss:?}");
            }
        }
        assert_eq!(classify(Stage::Message, Refusal { code: 999, text: "" }).class, Ambiguous);
    }

    #[test]
    fn an_enhanced_code_that_is_none_or_contradicts_is_not_heard() {
        for text in ["", "5.1", "5.1.x", "5.1.1000", "a 5.1.1", "4.1.1 transient?", "5..1", "no. such. user"] {
            assert_eq!(classify(Stage::Message, Refusal { code: 554, text }).reason, "SMTP_554", "{text}");
        }
    }
}
