//! `log`: a line for whoever can't be reached otherwise. It has no provider that could answer.

use p2phub_proto::notify::v1::{AttemptOutcome::Delivered, NotificationKind, NotificationRequest};
use p2phub_tests::{pair::Options, wait};

use crate::{PAIR_PROCESS, stream};

use super::desk::notice;

/// With and without texts, in two processes whose output is read.
#[tokio::test(flavor = "multi_thread")]
async fn writes_one_line_and_what_is_said_forges_no_other() {
    for with_text in [true, false] {
        let options = Options::default().processes(PAIR_PROCESS).variable("NOTIFY_LOG_TEXT", &with_text.to_string());
        let mut pair = options.prepare().await;
        pair.start_notify().await;
        let mut producer = stream::Producer::open(&pair.clients, "conformance").await;
        let forged = "one\n2026-01-01T00:00:00Z ERROR forged\r\nthree \"quoted\" {\"level\":\"ERROR\"} \u{1b}[31mred";
        let arguments = [("name", "<Zoë> & Co"), ("xp", "35")];
        let requests = vec![
            NotificationRequest {
                locale: "ru".to_owned(),
                ..notice(NotificationKind::SignupL1, "reader", &arguments, Vec::new())
            },
            notice(NotificationKind::OperatorBroadcast, "listener", &[("text", forged)], Vec::new()),
        ];
        let record = stream::record(stream::message(requests));
        producer.publish(std::slice::from_ref(&record)).await;
        let log = wait::until("two lines in the log", async || {
            let log = pair.notify.as_ref().expect("it runs").log();
            ["reader", "listener"].iter().all(|one| log.contains(one)).then_some(log)
        })
        .await;
        let lines: Vec<_> = log.lines().filter(|line| line.contains("reader") || line.contains("listener")).collect();
        assert_eq!(lines.len(), 2, "{log}");
        for kind in ["SIGNUP_L1", "OPERATOR_BROADCAST"] {
            assert_eq!(lines.iter().filter(|line| line.contains(kind)).count(), 1, "{log}");
        }
        assert_eq!(log.contains("Zoë"), with_text, "{log}");
        assert_eq!(log.contains("forged"), with_text, "{log}");
        assert!(log.lines().all(|line| !line.starts_with("2026-01-01T00:00:00Z ERROR forged")), "{log}");
        assert!(!log.contains('\u{1b}'), "{log}");

        let filter = p2phub_proto::notify::v1::ListNotificationsRequest {
            source_event_id: record.event_id.clone(),
            ..Default::default()
        };
        let settled = wait::until("both on record", async || {
            let answer = pair.clients.clone().notifications.list_notifications(filter.clone()).await;
            let found = answer.expect("an answer").into_inner().notifications;
            (found.len() == 2 && found.iter().all(|one| one.settle_time.is_some())).then_some(found)
        })
        .await;
        for notification in settled {
            let attempts: Vec<_> = notification.deliveries[0].attempts.iter().map(|one| one.outcome()).collect();
            assert_eq!((notification.deliveries[0].channel.as_str(), attempts), ("log", vec![Delivered]));
        }
        drop(producer);
        pair.finish().await;
    }
}
