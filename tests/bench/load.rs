//! Producers on the Publish stream.

use std::time::SystemTime;

use p2phub_proto::notify::v1::{
    EventRecord, NotificationEvent, NotificationKind, NotificationRequest, PublishOpen, PublishRequest,
    PublishResponse, RecipientContact, publish_request::Frame,
};
use p2phub_tests::{clients::Clients, pair::Pair};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use uuid::Uuid;

/// A stream that uses all its credits.
pub(crate) struct Producer {
    frames: mpsc::UnboundedSender<PublishRequest>,
    answers: Streaming<PublishResponse>,
    credits: i32,
    owed: usize,
}

impl Producer {
    /// On a connection of its own.
    pub(crate) async fn open(pair: &Pair, name: &str) -> Self {
        let (frames, receiver) = mpsc::unbounded_channel();
        let open = Frame::Open(PublishOpen { producer: name.to_owned() });
        frames.send(PublishRequest { frame: Some(open) }).expect("a stream");
        let mut clients = Clients::new(pair.referral_address, pair.notify_address);
        let answers = clients.ingest.publish(UnboundedReceiverStream::new(receiver)).await.expect("a stream");
        Self { frames, answers: answers.into_inner(), credits: 0, owed: 0 }
    }

    /// Sends an event that has just occurred; waits while there is no credit for it.
    pub(crate) async fn send(&mut self, requests: Vec<NotificationRequest>) {
        while self.credits == 0 {
            self.hear().await;
        }
        let id = Uuid::now_v7();
        let record = EventRecord {
            event_id: id.to_string(),
            traceparent: format!("00-{}-00f067aa0ba902b7-01", id.simple()),
            occur_time: Some(SystemTime::now().into()),
            event: NotificationEvent { requests }.encode_to_vec(),
            ..Default::default()
        };
        self.credits -= 1;
        self.owed += 1;
        self.frames.send(PublishRequest { frame: Some(Frame::Record(record)) }).expect("a stream");
    }

    /// Waits until every event is acknowledged.
    pub(crate) async fn settle(&mut self) {
        while self.owed > 0 {
            self.hear().await;
        }
    }

    async fn hear(&mut self) {
        let answer = self.answers.message().await.expect("an answer").expect("outcomes");
        self.credits += answer.credits;
        self.owed -= answer.results.len();
    }
}

/// A text to one recipient: over a webhook, or to the log.
pub(crate) fn request(recipient: usize, url: Option<String>) -> NotificationRequest {
    let contact = |address| RecipientContact { channel: "webhook".to_owned(), address };
    NotificationRequest {
        kind: NotificationKind::OperatorBroadcast.into(),
        recipient_id: format!("recipient-{recipient}"),
        locale: "en".to_owned(),
        contacts: url.map(contact).into_iter().collect(),
        arguments: [("text".to_owned(), "A text of about as many letters as people write.".to_owned())].into(),
        expire_time: None,
    }
}
