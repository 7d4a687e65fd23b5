//! An HTTP endpoint in Sentry's place on loopback: it keeps the envelopes that come, and reads them.

use serde_json::Value;

use crate::{
    sink::{Reply, Sink},
    wait,
};

/// The endpoint; it ends when dropped.
pub struct Sentry {
    sink: Sink,
}

/// What one item of an envelope holds.
#[derive(Clone, Debug)]
pub struct Item {
    /// `event`, `transaction`, …
    pub kind: String,
    pub content: Value,
}

impl Item {
    /// The trace that it is filed under: OpenTelemetry's, if all is well.
    pub fn trace_id(&self) -> &str {
        self.content["contexts"]["trace"]["trace_id"].as_str().unwrap_or_default()
    }

    pub fn tag(&self, name: &str) -> &str {
        self.content["tags"][name].as_str().unwrap_or_default()
    }

    /// A transaction's name.
    pub fn name(&self) -> &str {
        self.content["transaction"].as_str().unwrap_or_default()
    }
}

impl Sentry {
    pub async fn start() -> Self {
        Self { sink: Sink::start().await }
    }

    /// What SENTRY_DSN is to be.
    pub fn dsn(&self) -> String {
        self.sink.url("/1").replacen("://", "://key@", 1)
    }

    /// From now on it takes everything and answers nothing.
    pub fn hang(&self) {
        self.sink.otherwise(Reply::hang());
    }

    /// Everything that came, as it came.
    pub fn bodies(&self) -> Vec<String> {
        self.sink.received().iter().map(|received| String::from_utf8_lossy(&received.body).into_owned()).collect()
    }

    /// The items of all envelopes so far.
    pub fn items(&self) -> Vec<Item> {
        let received = self.sink.received();
        for one in &received {
            assert_eq!((one.method.as_str(), one.path.as_str()), ("POST", "/api/1/envelope/"));
        }
        received.iter().flat_map(|received| items(&received.body)).collect()
    }

    pub fn events(&self) -> Vec<Item> {
        self.of_kind("event")
    }

    pub fn transactions(&self) -> Vec<Item> {
        self.of_kind("transaction")
    }

    fn of_kind(&self, kind: &str) -> Vec<Item> {
        let mut items = self.items();
        items.retain(|item| item.kind == kind);
        items
    }

    /// Waits for an event of this trace.
    pub async fn event_of(&self, trace_id: &str) -> Item {
        self.wait_for(&format!("an event of trace {trace_id}"), |item| {
            item.kind == "event" && item.trace_id() == trace_id
        })
        .await
    }

    /// Waits for an item.
    pub async fn wait_for(&self, what: &str, is_it: impl Fn(&Item) -> bool) -> Item {
        wait::until(&format!("{what} at Sentry"), async || self.items().into_iter().find(&is_it)).await
    }
}

/// A line about the envelope, then for each item a line about it and its content.
fn items(mut body: &[u8]) -> Vec<Item> {
    line(&mut body);
    let mut items = Vec::new();
    while !body.is_empty() {
        let header = line(&mut body);
        let header: Value = serde_json::from_slice(header).expect("an item's header");
        let length = header["length"].as_u64().and_then(|length| usize::try_from(length).ok()).expect("a length");
        let (content, rest) = body.split_at(length);
        let content = serde_json::from_slice(content).expect("an item's content");
        items.push(Item { kind: header["type"].as_str().expect("a type").to_owned(), content });
        body = rest.strip_prefix(b"\n").unwrap_or(rest);
    }
    items
}

fn line<'a>(body: &mut &'a [u8]) -> &'a [u8] {
    let end = body.iter().position(|byte| *byte == b'\n').unwrap_or(body.len());
    let line = &body[..end];
    *body = body.get(end + 1..).unwrap_or_default();
    line
}
