//! A message that came, taken apart as a mail client would (RFC 5322, RFC 2045 to 2047).

use std::time::Instant;

use base64::{Engine, prelude::BASE64_STANDARD};

/// A message with its envelope.
#[derive(Clone, Debug)]
pub struct Letter {
    /// From MAIL.
    pub sender: String,
    /// From RCPT.
    pub recipient: String,
    /// Whether it came over an encrypted connection.
    pub is_encrypted: bool,
    /// As it came.
    pub raw: String,
    /// In order, unfolded and decoded.
    pub headers: Vec<(String, String)>,
    /// The part that is plain text, with line feeds for line ends.
    pub text: String,
    /// The part that is HTML.
    pub html: String,
    pub at: Instant,
}

impl Letter {
    pub(super) fn read(sender: &str, recipient: &str, is_encrypted: bool, raw: String) -> Self {
        let headers = headers(&raw);
        let boundary =
            find(&headers, "Content-Type").split("boundary=\"").nth(1).and_then(|rest| rest.split('"').next());
        let boundary = format!("--{}", boundary.unwrap_or("none"));
        let mut parts = raw.split(&boundary).skip(1);
        let (text, html) = (parts.next().map(part).unwrap_or_default(), parts.next().map(part).unwrap_or_default());
        Self {
            sender: sender.to_owned(),
            recipient: recipient.to_owned(),
            is_encrypted,
            headers,
            text,
            html,
            raw,
            at: Instant::now(),
        }
    }

    /// A header's value; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        find(&self.headers, name)
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
    let found = headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
    found.map_or("", |(_, value)| value.as_str())
}

fn headers(text: &str) -> Vec<(String, String)> {
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", "\t");
    let lines = unfolded.split("\r\n").filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.to_owned(), words(value.trim()))).collect()
}

/// A header's value with its encoded words decoded; the spaces between two of them don't count (RFC 2047, section 6.2).
fn words(value: &str) -> String {
    let mut decoded = String::new();
    let mut last_was_encoded = false;
    for word in value.split(' ') {
        let encoded = encoded_word(word);
        let is_joined = last_was_encoded && encoded.is_some();
        if !decoded.is_empty() && !is_joined {
            decoded.push(' ');
        }
        last_was_encoded = encoded.is_some();
        decoded.push_str(encoded.as_deref().unwrap_or(word));
    }
    decoded
}

fn encoded_word(word: &str) -> Option<String> {
    let mut fields = word.strip_prefix("=?")?.strip_suffix("?=")?.splitn(3, '?');
    let (charset, encoding, text) = (fields.next()?, fields.next()?, fields.next()?);
    assert!(charset.eq_ignore_ascii_case("utf-8"), "{word}");
    let bytes = match encoding {
        "b" | "B" => BASE64_STANDARD.decode(text).ok()?,
        _ => quoted(&text.replace('_', " ")),
    };
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn part(text: &str) -> String {
    let text = text.trim_start_matches("\r\n");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let body = body.strip_suffix("\r\n").unwrap_or(body);
    let bytes = match find(&headers(head), "Content-Transfer-Encoding").to_ascii_lowercase().as_str() {
        "base64" => BASE64_STANDARD.decode(body.replace("\r\n", "")).expect("base64"),
        "quoted-printable" => quoted(body),
        _ => body.as_bytes().to_vec(),
    };
    String::from_utf8(bytes).expect("UTF-8").replace("\r\n", "\n")
}

fn quoted(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'=', [b'\r', b'\n', after @ ..]) => rest = after,
            (b'=', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).expect("two digits");
                bytes.push(u8::from_str_radix(digits, 16).expect("two hex digits"));
                rest = after;
            }
            (byte, _) => bytes.push(*byte),
        }
    }
    bytes
}
