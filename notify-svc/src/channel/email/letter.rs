//! An e-mail as it goes over the wire, made of a notification. It is the same, byte by byte, for every attempt.

use lettre::{
    Address,
    message::{
        Mailbox, MultiPart, SinglePart,
        header::{HeaderName, HeaderValue},
    },
};
use notify_domain::{delivery::Outcome, state::OutcomeClass};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::{Host, Url};

use crate::{channel::Message, template::Button};

/// Characters of a subject: no client shows more.
const SUBJECT_CHARACTERS_MAX: usize = 200;
/// What RFC 6068 leaves as it is in the address of a mailto URL.
const MAILTO: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What all e-mails share.
pub(super) struct Letterhead {
    pub(super) from: Mailbox,
    pub(super) unsubscribe_url: Option<Url>,
}

/// An e-mail and its envelope.
pub(super) struct Letter {
    pub(super) from: Address,
    pub(super) to: Address,
    /// Headers and body (RFC 5322), all of it ASCII.
    pub(super) text: Vec<u8>,
}

impl Letterhead {
    /// Writes an e-mail, or says what in the notification makes that impossible.
    ///
    /// Headers: RFC 5322; RFC 2369 and RFC 8058 for the way out; RFC 3834 so that no machine answers.
    pub(super) fn write(&self, message: &Message) -> Result<Letter, Outcome> {
        let to = address(&message.address).ok_or(Outcome::new(OutcomeClass::Address, "ADDRESS_MALFORMED"))?;
        let id = message.notification_id;
        let mut builder = lettre::Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to.clone()))
            .subject(subject(&message.rendered.subject))
            .date(message.create_time.into())
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            .raw_header(header("Auto-Submitted", "auto-generated".to_owned()))
            .raw_header(header("List-Unsubscribe", self.unsubscribe(&message.unsubscribe_token)));
        if self.unsubscribe_url.is_some() {
            builder = builder.raw_header(header("List-Unsubscribe-Post", "List-Unsubscribe=One-Click".to_owned()));
        }
        let parts = MultiPart::alternative()
            .boundary(format!("part-{}", id.simple()))
            .singlepart(SinglePart::plain(plain(message)))
            .singlepart(SinglePart::html(html(message)));
        let written = builder.multipart(parts).map_err(|_| Outcome::new(OutcomeClass::Content, "EMAIL_UNWRITABLE"))?;
        Ok(Letter { from: self.from.email.clone(), to, text: written.formatted() })
    }

    fn unsubscribe(&self, token: &str) -> String {
        let (user, domain) = (self.from.email.user(), self.from.email.domain());
        let token = utf8_percent_encode(token, MAILTO);
        let mailto = format!("<mailto:{}@{domain}?subject=unsubscribe%20{token}>", utf8_percent_encode(user, MAILTO));
        let Some(mut url) = self.unsubscribe_url.clone() else {
            return mailto;
        };
        let pair = format!("token={token}");
        let query = url.query().map_or_else(|| pair.clone(), |query| format!("{query}&{pair}"));
        url.set_query(Some(&query));
        format!("<{url}>,\r\n {mailto}")
    }
}

/// Both parts are of this service's making and ASCII; the library would fold or encode a long one, which a URL can't bear.
fn header(name: &'static str, value: String) -> HeaderValue {
    HeaderValue::dangerous_new_pre_encoded(HeaderName::new_from_ascii_str(name), value.clone(), value)
}

/// The address alone, without a name. A domain in other letters is written in ASCII (RFC 5891); a mailbox can't be (RFC 6531 is
/// for servers that all agree to it).
fn address(text: &str) -> Option<Address> {
    let address: Address = text.parse().ok()?;
    if text.chars().any(|character| character.is_control() || character.is_whitespace()) || !address.user().is_ascii() {
        return None;
    }
    if address.domain().is_ascii() {
        return Some(address);
    }
    match Host::parse(address.domain()).ok()? {
        Host::Domain(domain) => Address::new(address.user(), domain).ok(),
        Host::Ipv4(_) | Host::Ipv6(_) => None,
    }
}

/// One line, and not without end: a line of a header has 998 bytes (RFC 5322, section 2.1.1).
fn subject(text: &str) -> String {
    let line = text.split(char::is_control).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SUBJECT_CHARACTERS_MAX) {
        None => line,
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
    }
}

/// With line feeds alone for line ends, and no other control characters.
fn lines(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.chars().filter(|character| matches!(character, '\n' | '\t') || !character.is_control()).collect()
}

fn plain(message: &Message) -> String {
    let text = lines(&message.rendered.text);
    match &message.rendered.button {
        None => text,
        Some(Button { label, url }) => format!("{text}\n\n{}: {}", subject(label), lines(url)),
    }
}

fn html(message: &Message) -> String {
    let text = escaped(&lines(&message.rendered.text)).replace('\n', "<br>\n");
    let button = message.rendered.button.as_ref().map_or_else(String::new, |Button { label, url }| {
        format!("<p><a href=\"{}\">{}</a></p>\n", escaped(&lines(url)), escaped(&subject(label)))
    });
    format!(
        "<!DOCTYPE html>\n<html lang=\"{}\">\n<head><meta charset=\"utf-8\"><title>{}</title></head>\n<body>\n\
         <p dir=\"auto\">{text}</p>\n{button}</body>\n</html>\n",
        message.locale.as_str(),
        escaped(&subject(&message.rendered.subject)),
    )
}

/// Safe as text and in an attribute (the HTML standard, "Escaping a string").
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
#[path = "letter_tests.rs"]
mod tests;
