use std::collections::BTreeMap;

use chrono::DateTime;
use notify_domain::kind::Kind;
use uuid::Uuid;

use super::*;
use crate::template::{Locale, Rendered};

const ID: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);

fn letterhead(unsubscribe_url: Option<&str>) -> Letterhead {
    let unsubscribe_url = unsubscribe_url.map(|url| url.parse().expect("a URL"));
    Letterhead { from: "P2PHub <no-reply+x@mail.example.org>".parse().expect("an address"), unsubscribe_url }
}

fn message(address: &str, subject: &str, text: &str) -> Message {
    Message {
        notification_id: ID,
        kind: Kind::OperatorBroadcast,
        recipient_id: "someone".to_owned(),
        address: address.to_owned(),
        locale: Locale::En,
        rendered: Rendered { subject: subject.to_owned(), text: text.to_owned(), button: None },
        arguments: BTreeMap::new(),
        unsubscribe_token: "to-ken_1".to_owned(),
        trace_id: "0".repeat(32),
        create_time: DateTime::UNIX_EPOCH,
    }
}

fn written(message: &Message) -> String {
    let letter = letterhead(Some("https://example.org/u?a=b")).write(message).expect("a letter");
    String::from_utf8(letter.text).expect("ASCII")
}

/// Names of headers, and everything before the empty line.
fn headers(text: &str) -> (Vec<&str>, &str) {
    let (headers, _) = text.split_once("\r\n\r\n").expect("an empty line");
    let names = headers.split("\r\n").filter(|line| !line.starts_with([' ', '\t']));
    (names.map(|line| line.split_once(": ").expect("a header").0).collect(), headers)
}

const NAMES: [&str; 10] = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Auto-Submitted",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "MIME-Version",
    "Content-Type",
];

#[test]
fn an_email_has_the_headers_it_needs() {
    let text = written(&message("a@b.example", "Hello", "Hello"));
    let (names, headers) = headers(&text);
    assert_eq!(names, NAMES);
    let unfolded = headers.replace("\r\n ", " ");
    for line in [
        "From: P2PHub <no-reply+x@mail.example.org>",
        "To: a@b.example",
        "Subject: Hello",
        "Date: Thu, 01 Jan 1970 00:00:00 +0000",
        "Message-ID: <01900000-0000-7000-8000-000000000001@mail.example.org>",
        "Auto-Submitted: auto-generated",
        "List-Unsubscribe: <https://example.org/u?a=b&token=to-ken_1>, \
         <mailto:no-reply%2Bx@mail.example.org?subject=unsubscribe%20to-ken_1>",
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
    ] {
        assert!(unfolded.split("\r\n").any(|found| found == line), "{line} is not in {unfolded}");
    }
    assert_eq!(text, written(&message("a@b.example", "Hello", "Hello")), "every attempt sends the same");
}

#[test]
fn without_a_url_there_is_only_the_mailto() {
    let letter = letterhead(None).write(&message("a@b.example", "Hello", "Hello")).expect("a letter");
    let text = String::from_utf8(letter.text).expect("ASCII");
    let (names, headers) = headers(&text);
    assert!(!names.contains(&"List-Unsubscribe-Post"));
    assert!(
        headers.contains("\r\nList-Unsubscribe: <mailto:no-reply%2Bx@mail.example.org?subject=unsubscribe%20to-ken_1>")
    );
}

#[test]
fn nothing_that_is_said_becomes_a_header() {
    let evil = [
        "\r\nBcc: evil@example.org",
        "\nBcc: evil@example.org",
        "\rBcc: evil@example.org\r\n\r\nbody",
        "\0",
        "\r\n.\r\n",
    ];
    for evil in evil {
        for around in ["", "Привет ", "a very long name that goes on and on and on, so that the line has to be folded "]
        {
            let said = format!("{around}{evil}{around}");
            let text = written(&message("a@b.example", &said, &said));
            let (names, headers) = headers(&text);
            assert_eq!(names, NAMES, "{said:?}");
            assert!(!headers.contains('\0'), "{said:?}");
            assert!(text.is_ascii() && !text.contains('\0'), "{said:?}");
            let bare = text.replace("\r\n", "");
            assert!(!bare.contains(['\r', '\n']), "a bare CR or LF for {said:?}");
            assert!(text.split("\r\n").all(|line| line.len() <= 998), "{said:?}");
        }
    }
    let letterhead = letterhead(None);
    for token in ["a>\r\nBcc: evil@example.org", "a\0b", "a\nb", "a b", "a>,<b"] {
        let message = Message { unsubscribe_token: token.to_owned(), ..message("a@b.example", "Hello", "Hello") };
        let letter = letterhead.write(&message).expect("a letter");
        let text = String::from_utf8(letter.text).expect("ASCII");
        assert!(!headers(&text).0.contains(&"Bcc") && !text.contains('\0'), "{token:?}");
        assert_eq!(text.matches('<').count(), written_angles(&letterhead), "{token:?}");
    }
}

fn written_angles(letterhead: &Letterhead) -> usize {
    let letter = letterhead.write(&message("a@b.example", "Hello", "Hello")).expect("a letter");
    letter.text.iter().filter(|byte| **byte == b'<').count()
}

#[test]
fn an_address_is_one_address_or_none() {
    for malformed in [
        "",
        "someone",
        "@example.org",
        "a@",
        "a@b@c",
        "a@b.example\r\nBcc: evil@example.org",
        "a@b.example\nBcc: evil@example.org",
        "a\r\nRCPT TO:<evil@example.org>@b.example",
        "a@b.example\0",
        "a\0@b.example",
        "\"a\r\nb\"@b.example",
        "\"a b\"@b.example",
        "a@b.example, c@d.example",
        "<a@b.example>",
        "A <a@b.example>",
        "a@b.example> SIZE=1",
        "a@b example",
        "ä@b.example",
        &format!("{}@b.example", "x".repeat(65)),
        &format!("a@{}.example", "x".repeat(256)),
    ] {
        let outcome = letterhead(None).write(&message(malformed, "Hello", "Hello")).err();
        assert_eq!(outcome, Some(Outcome::new(OutcomeClass::Address, "ADDRESS_MALFORMED")), "{malformed:?}");
    }
    for (given, used) in [
        ("a@b.example", "a@b.example"),
        ("First.Last+tag@Example.ORG", "First.Last+tag@Example.ORG"),
        ("o'neil@b.example", "o'neil@b.example"),
        ("a@пример.рф", "a@xn--e1afmkfd.xn--p1ai"),
    ] {
        let letter = letterhead(None).write(&message(given, "Hello", "Hello")).unwrap_or_else(|_| panic!("{given}"));
        assert_eq!(letter.to.to_string(), used);
    }
}

#[test]
fn a_subject_is_one_line_of_bounded_length() {
    assert_eq!(subject("a\r\nb\0c\td"), "a b c d");
    assert_eq!(subject("\r\n"), "");
    assert_eq!(subject(&"я".repeat(200)), "я".repeat(200));
    assert_eq!(subject(&"я".repeat(201)), format!("{}…", "я".repeat(200)));
}

#[test]
fn the_html_version_is_the_text_escaped_with_its_line_breaks() {
    let button = Some(Button { label: "Open <it>".to_owned(), url: "https://example.org/?a=1&b=\"2\"".to_owned() });
    let mut message = message("a@b.example", "<i>", "<b>&\"'\r\nsecond\rthird\nfourth\u{8}");
    message.rendered.button = button;
    let html = html(&message);
    assert!(
        html.contains("<p dir=\"auto\">&lt;b&gt;&amp;&quot;&#39;<br>\nsecond<br>\nthird<br>\nfourth</p>"),
        "{html}"
    );
    assert!(html.contains("<a href=\"https://example.org/?a=1&amp;b=&quot;2&quot;\">Open &lt;it&gt;</a>"), "{html}");
    assert!(html.contains("<title>&lt;i&gt;</title>"), "{html}");
    assert_eq!(plain(&message), "<b>&\"'\nsecond\nthird\nfourth\n\nOpen <it>: https://example.org/?a=1&b=\"2\"");
}
