//! What leaves for Sentry loses names, contacts, tokens and payloads here: by the names of fields, and by how texts look.
//!
//! Better too much than too little: whoever needs the rest finds it in the database, under the trace ID.

mod text;

use std::collections::BTreeMap;

use sentry::protocol::{Context, Event, LogEntry, Stacktrace, Transaction, Value};
use text::statement;
pub(super) use text::text;

const SCRUBBED: &str = "[scrubbed]";

/// Fields of exactly these names.
const PERSONAL: [&str; 8] = ["name", "text", "body", "title", "user", "recipient", "args", "binds"];
/// Fields whose names hold one of these.
const PERSONAL_PARTS: [&str; 31] = [
    "first_name",
    "firstname",
    "last_name",
    "lastname",
    "full_name",
    "fullname",
    "display_name",
    "username",
    "user_name",
    "contact",
    "address",
    "email",
    "e_mail",
    "phone",
    "chat_id",
    "chat",
    "argument",
    "payload",
    "token",
    "secret",
    "passw",
    "credential",
    "authorization",
    "cookie",
    "api_key",
    "dsn",
    "external_id",
    "external_ref",
    "referral_code",
    "baggage",
    "header",
];
/// Fields that hold a statement, without its values.
const STATEMENTS: [&str; 4] = ["db.query.text", "db.statement", "statement", "sql"];

type Map = BTreeMap<String, Value>;

/// Scrubs an event. Named field by field: a field that a later version adds doesn't compile until somebody has thought of it.
pub(super) fn event(event: &mut Event<'static>) {
    let Event {
        culprit,
        transaction,
        message,
        logentry,
        user,
        request,
        contexts,
        breadcrumbs,
        exception,
        stacktrace,
        template,
        threads,
        tags,
        extra,
        // Made by this program, its compiler and its operator.
        event_id: _,
        level: _,
        fingerprint: _,
        logger: _,
        modules: _,
        platform: _,
        timestamp: _,
        server_name: _,
        release: _,
        dist: _,
        environment: _,
        debug_meta: _,
        sdk: _,
    } = event;
    (*user, *request, *template) = (None, None, None);
    [culprit, transaction, message].into_iter().flatten().for_each(scrub);
    if let Some(LogEntry { message, params }) = logentry {
        scrub(message);
        params.iter_mut().for_each(value);
    }
    contexts.values_mut().for_each(context);
    for breadcrumb in &mut breadcrumbs.values {
        breadcrumb.message.iter_mut().for_each(scrub);
        map(&mut breadcrumb.data);
    }
    for exception in &mut exception.values {
        scrub(&mut exception.ty);
        exception.value.iter_mut().for_each(scrub);
        if let Some(mechanism) = &mut exception.mechanism {
            mechanism.description.iter_mut().for_each(scrub);
            map(&mut mechanism.data);
        }
        [&mut exception.stacktrace, &mut exception.raw_stacktrace].into_iter().flatten().for_each(without_variables);
    }
    for thread in &mut threads.values {
        [&mut thread.stacktrace, &mut thread.raw_stacktrace].into_iter().flatten().for_each(without_variables);
    }
    stacktrace.iter_mut().for_each(without_variables);
    scrub_tags(tags);
    map(extra);
}

/// Scrubs a transaction by the same rules.
pub(super) fn transaction(transaction: &mut Transaction<'static>) {
    let Transaction {
        name,
        user,
        request,
        tags,
        extra,
        spans,
        contexts,
        event_id: _,
        release: _,
        environment: _,
        sdk: _,
        platform: _,
        timestamp: _,
        start_timestamp: _,
        server_name: _,
    } = transaction;
    (*user, *request) = (None, None);
    name.iter_mut().for_each(scrub);
    scrub_tags(tags);
    map(extra);
    contexts.values_mut().for_each(context);
    for span in spans {
        let is_statement = span.data.keys().any(|key| STATEMENTS.contains(&key.as_str()));
        if let Some(description) = &mut span.description {
            *description = if is_statement { statement(description) } else { text(description) };
        }
        scrub_tags(&mut span.tags);
        map(&mut span.data);
    }
}

fn context(context: &mut Context) {
    match context {
        Context::Other(fields) => map(fields),
        Context::Trace(trace) => {
            trace.description.iter_mut().for_each(scrub);
            map(&mut trace.data);
        }
        // Of the machine, not of anybody's call.
        _ => {}
    }
}

/// Source lines are the program's own; what variables held is not.
fn without_variables(stacktrace: &mut Stacktrace) {
    stacktrace.frames.iter_mut().for_each(|frame| frame.vars.clear());
}

fn scrub_tags(tags: &mut BTreeMap<String, String>) {
    for (key, tag) in tags {
        *tag = if is_personal(key) { SCRUBBED.to_owned() } else { text(tag) };
    }
}

fn map(fields: &mut Map) {
    for (key, field) in fields {
        scrub_field(key, field);
    }
}

fn scrub_field(key: &str, field: &mut Value) {
    match field {
        Value::Null | Value::Bool(_) => {}
        Value::String(text) if STATEMENTS.contains(&key) => *text = statement(text),
        _ if is_personal(key) => *field = SCRUBBED.into(),
        field => value(field),
    }
}

fn value(field: &mut Value) {
    match field {
        Value::String(text) => scrub(text),
        Value::Array(items) => items.iter_mut().for_each(value),
        Value::Object(fields) => fields.iter_mut().for_each(|(key, field)| scrub_field(key, field)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn is_personal(key: &str) -> bool {
    let key = key.to_lowercase().replace('-', "_");
    PERSONAL.contains(&key.as_str()) || PERSONAL_PARTS.iter().any(|part| key.contains(part))
}

fn scrub(field: &mut String) {
    *field = text(field);
}

#[cfg(test)]
mod tests;
