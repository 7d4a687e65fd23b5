//! An event that notify-svc doesn't take: told by whoever has to act.

use p2phub_tests::{
    pair::Pair,
    postgres::Role,
    sentry::{Item, Sentry},
};

use super::options;
use crate::{delivery::to, stream::message};

const REFUSED: &str = "00000000-0000-0000-0000-000000000002";

/// Has an event published in a trace of its own.
async fn publish(pair: &Pair, event_id: &str, trace_id: &str, event: &[u8]) {
    let insert =
        "INSERT INTO outbox (event_id, create_time, traceparent, event) VALUES ($1::text::uuid, now(), $2, $3)";
    let traceparent = format!("00-{trace_id}-00f067aa0ba902b7-01");
    let sql = pair.referral_sql(Role::Superuser).await;
    sql.execute(insert, &[&event_id, &traceparent, &event]).await.expect("an event");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_event_is_told_by_its_producer_and_by_notify_svc_only_if_its_database_is_why() {
    let sentry = Sentry::start().await;
    let mut pair = options(&sentry).start().await;
    let trigger = format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON inbox FOR EACH ROW
         WHEN (NEW.event_id = '{REFUSED}') EXECUTE FUNCTION refuse()"
    );
    pair.notify_sql(Role::Superuser).await.batch_execute(&trigger).await.expect("a trigger");
    let (malformed, refused) = ("1".repeat(32), "2".repeat(32));
    publish(&pair, "00000000-0000-0000-0000-000000000001", &malformed, &[0xff; 3]).await;
    publish(&pair, REFUSED, &refused, &message(vec![to("someone", Vec::new())])).await;
    for trace_id in [&malformed, &refused] {
        let tells = |item: &Item| item.trace_id() == trace_id && item.tag("service") == "referral-svc";
        sentry.wait_for("the producer's event", |item| item.kind == "event" && tells(item)).await;
    }
    pair.stop_referral().await;
    pair.stop_notify().await;
    let told = |trace_id: &str| {
        let events = sentry.events().into_iter().filter(|event| event.trace_id() == trace_id);
        let mut services: Vec<_> = events.map(|event| event.tag("service").to_owned()).collect();
        services.sort();
        services
    };
    assert_eq!(told(&malformed), ["referral-svc"]);
    assert_eq!(told(&refused), ["notify-svc", "referral-svc"]);
}
