use proptest::prelude::*;
use sentry::protocol::{Breadcrumb, Exception, Request, Span, TraceContext, User};
use serde_json::json;

use super::*;

#[test]
fn what_is_personal_or_secret_goes_from_texts() {
    for (before, after) in [
        ("ann@example.org wrote", "[scrubbed] wrote"),
        ("postgres://me:pw@db:5432/x is away", "postgres://[scrubbed] is away"),
        ("https://api.telegram.org/bot123456:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/sendMessage", "https://[scrubbed]"),
        ("bot123456:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw was refused", "[scrubbed] was refused"),
        ("to /services/T000/B000/XXXX", "to [scrubbed]"),
        ("key whsec_c2VjcmV0 is old", "key [scrubbed] is old"),
        ("with Bearer abc.def", "with [scrubbed]"),
        ("eyJhbGciOiJI.eyJzdWIi.c2ln expired", "[scrubbed] expired"),
        ("telegram:1001 is known", "[scrubbed] is known"),
        ("@ada_lovelace is known", "[scrubbed] is known"),
        ("chat -1001234567890 is gone", "chat -[scrubbed] is gone"),
        ("call +49 (30) 901820", "call [scrubbed]"),
        ("call 555-123-4567", "call [scrubbed]"),
        ("code P2P-ABCD1234", "code [scrubbed]"),
        ("SELECT $1 -- binds: [\"Ann\", 7]", "SELECT $1 -- binds: [scrubbed]"),
        ("Key (external_id)=(a) b) already exists.", "Key (external_id)=([scrubbed]"),
        ("Failing row contains (1, Ann, null).", "Failing row contains ([scrubbed]"),
        ("value too long: \"Ann\" in line 3", "value too long: [scrubbed] in line 3"),
        ("no room for 'Ann O'Neil' here", "no room for [scrubbed] here"),
        ("cut off: \"Ann", "cut off: [scrubbed]"),
        ("{\"first_name\": \"Smith, John\"}", "{[scrubbed]"),
        ("Partner { first_name: Ann }", "Partner { first_name=[scrubbed]"),
        ("password=hunter2; next", "password=[scrubbed]"),
        ("the token AbCdEfGhIjKlMnOpQrStUv12 is bad", "the token [scrubbed] is bad"),
    ] {
        assert_eq!(text(before), after, "{before}");
    }
}

#[test]
fn what_operators_look_for_stays_in_texts() {
    for kept in [
        "null value in column \"first_name\" of relation \"partners\" violates not-null constraint",
        "duplicate key value violates unique constraint \"commissions_payment_id_level_unique_key\"",
        "relation \"public.partners\" does not exist",
        "a command can't be committed: the partners' list isn't there",
        "notification 01932c07-2f4e-7c3a-9d0f-123456789012 is dead",
        "trace 0af7651916cd43dd8448eb211c80319c span b7ad6b7169203331",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "p2phub.referral.v1.PaymentService/ConfirmPayment",
        "since 2026-11-25T03:07:55.123456Z",
        "connection refused (os error 111) after 5000 ms",
        "`DateTime + TimeDelta` overflowed",
    ] {
        assert_eq!(text(kept), kept);
    }
}

#[test]
fn statements_keep_their_shape() {
    let written = "SELECT \"partners\".\"xp\" FROM \"partners\" WHERE name = $1 AND state = 'it''s' LIMIT 10";
    let kept = "SELECT \"partners\".\"xp\" FROM \"partners\" WHERE name = $1 AND state = [scrubbed] LIMIT 10";
    assert_eq!(statement(written), kept);
    assert_eq!(statement("SELECT $1 -- binds: [\"Ann\"]"), "SELECT $1 -- binds: [scrubbed]");
}

#[test]
fn fields_go_by_their_names() {
    for key in ["name", "first_name", "email", "chat_id", "Authorization", "external-id", "page_token", "baggage.user"]
    {
        assert!(is_personal(key), "{key}");
    }
    for key in
        ["rpc.system.name", "db.query.text", "notification_id", "partner_id", "method", "error", "reason", "context"]
    {
        assert!(!is_personal(key), "{key}");
    }
}

fn planted(secret: &str) -> Value {
    json!({
        "first_name": secret,
        "arguments": { "level": [secret] },
        "error": format!("no room for \"{secret}\""),
        "deep": [{ "contacts": [{ "address": secret }], "why": format!("first_name={secret}") }],
    })
}

fn fields(secret: &str) -> Map {
    planted(secret).as_object().unwrap().clone().into_iter().collect()
}

/// An event that holds a secret wherever one can stand.
fn full_event(secret: &str) -> Event<'static> {
    let quoted = Some(format!("quoted: \"{secret}\""));
    let mut event = Event {
        culprit: quoted.clone(),
        transaction: quoted.clone(),
        message: quoted.clone(),
        logentry: Some(LogEntry { message: format!("'{secret}'"), params: vec![planted(secret)] }),
        user: Some(User { username: Some(secret.to_owned()), ..User::default() }),
        request: Some(Request { data: Some(secret.to_owned()), ..Request::default() }),
        extra: fields(secret),
        ..Event::default()
    };
    event.breadcrumbs.values.push(Breadcrumb {
        message: quoted.clone(),
        data: fields(secret),
        ..Breadcrumb::default()
    });
    let frame = sentry::protocol::Frame { vars: fields(secret), ..Default::default() };
    let stacktrace = Stacktrace { frames: vec![frame], ..Stacktrace::default() };
    let exception =
        Exception { ty: "panic".to_owned(), value: quoted, stacktrace: Some(stacktrace), ..Exception::default() };
    event.exception.values.push(exception);
    event.tags.insert("email".to_owned(), secret.to_owned());
    event.tags.insert("rpc".to_owned(), format!("\"{secret}\""));
    event.contexts.insert("Rust Tracing Fields".to_owned(), Context::Other(fields(secret)));
    let trace =
        TraceContext { data: fields(secret), description: Some(format!("'{secret}'")), ..TraceContext::default() };
    event.contexts.insert("trace".to_owned(), trace.into());
    event
}

fn full_transaction(secret: &str) -> Transaction<'static> {
    let mut data = fields(secret);
    data.insert("db.query.text".to_owned(), format!("SELECT '{}'", secret.replace('\'', "''")).into());
    let description = data["db.query.text"].as_str().map(str::to_owned);
    Transaction {
        name: Some(format!("\"{secret}\"")),
        user: Some(User { email: Some(secret.to_owned()), ..User::default() }),
        tags: BTreeMap::from([("email".to_owned(), secret.to_owned())]),
        extra: fields(secret),
        spans: vec![Span { description, data, ..Span::default() }],
        ..Transaction::default()
    }
}

#[test]
fn ids_and_tags_stay_on_an_event() {
    let mut event = Event::default();
    event.tags.insert("trace_id".to_owned(), "0af7651916cd43dd8448eb211c80319c".to_owned());
    event.tags.insert("rpc".to_owned(), "p2phub.referral.v1.PartnerService/GetPartner".to_owned());
    event.server_name = Some("host-1".into());
    let before = event.clone();
    super::event(&mut event);
    assert_eq!(event, before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_planted_secret_survives(secret in "[A-Za-z0-9 \"'@:,.(){}=ÄÖß]{0,12}QZQZ[A-Za-z0-9 \"'@:,.(){}=ÄÖß]{0,12}QZQZ") {
        let mut event = full_event(&secret);
        super::event(&mut event);
        let sent = serde_json::to_string(&event).unwrap();
        prop_assert!(!sent.contains("QZQZ"), "{sent}");
        let mut transaction = full_transaction(&secret);
        super::transaction(&mut transaction);
        let sent = serde_json::to_string(&transaction).unwrap();
        prop_assert!(!sent.contains("QZQZ"), "{sent}");
    }

    #[test]
    fn no_contact_survives(
        before in "[a-z ]{0,10}",
        after in "[a-z ]{0,10}",
        email in "[a-z][a-z0-9.+]{0,12}@[a-z0-9]{1,10}[.][a-z]{2,4}",
        number in "[+]?[1-9][0-9]{6,14}",
        token in "[0-9]{6,10}:AA[A-Za-z0-9_-]{33}",
    ) {
        let sent = text(&format!("{before} {email} {after} {number}, {token} {before}"));
        prop_assert!(!sent.contains(&email) && !sent.contains(number.trim_start_matches('+')) && !sent.contains(&token), "{sent}");
    }

    #[test]
    fn any_text_can_be_scrubbed(any in "\\PC{0,60}") {
        let once = text(&any);
        prop_assert!(once.len() <= any.len() * 12 + 12);
        statement(&any);
    }
}
