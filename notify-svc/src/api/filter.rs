//! Which notifications are meant.

use p2phub_proto::notify::v1::{ListNotificationsRequest, NotificationFilter};
use service::error::Failure;

use super::fields;
use crate::store::notifications::Filter;

/// A filter; `prefix` is what its fields' names have in front.
pub(super) fn filter(prefix: &str, given: &NotificationFilter) -> Result<Filter, Failure> {
    let name = |field: &str| format!("{prefix}{field}");
    let filter = Filter {
        recipient_id: fields::optional_recipient(&name("recipient_id"), &given.recipient_id)?,
        state: fields::state(&name("state"), given.state)?,
        trace_id: fields::trace_id(&name("trace_id"), &given.trace_id)?,
        source_event_id: fields::optional_uuid(&name("source_event_id"), &given.source_event_id)?,
        kind: fields::kind(&name("kind"), given.kind)?,
        channel: fields::optional_channel(&name("channel"), &given.channel)?,
        start_time: fields::time(&name("start_time"), given.start_time.as_ref())?,
        end_time: fields::time(&name("end_time"), given.end_time.as_ref())?,
    };
    if filter.start_time.zip(filter.end_time).is_some_and(|(start, end)| start > end) {
        return Err(Failure::violation(name("end_time"), "must not be before start_time"));
    }
    Ok(filter)
}

/// A list's filter.
pub(super) fn of_list(request: &ListNotificationsRequest) -> Result<Filter, Failure> {
    let given = NotificationFilter {
        recipient_id: request.recipient_id.clone(),
        state: request.state,
        trace_id: request.trace_id.clone(),
        source_event_id: request.source_event_id.clone(),
        kind: request.kind,
        channel: request.channel.clone(),
        start_time: request.start_time,
        end_time: request.end_time,
    };
    filter("", &given)
}

/// Everything that a page token of this filter is bound to.
pub(super) fn scope(filter: &Filter) -> Vec<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let time = |time: Option<chrono::DateTime<chrono::Utc>>| time.map(|time| time.to_rfc3339()).unwrap_or_default();
    vec![
        "notifications".to_owned(),
        text(&filter.recipient_id),
        filter.state.map_or("", |state| state.as_str()).to_owned(),
        text(&filter.trace_id),
        filter.source_event_id.map(|id| id.to_string()).unwrap_or_default(),
        filter.kind.map_or("", |kind| kind.as_str()).to_owned(),
        filter.channel.map_or("", |channel| channel.as_str()).to_owned(),
        time(filter.start_time),
        time(filter.end_time),
    ]
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;
    use tonic::Code;

    use super::*;

    #[test]
    fn bad_filters_name_their_field() {
        let empty = NotificationFilter::default;
        let at = |seconds, nanos| Some(Timestamp { seconds, nanos });
        let bad = [
            ("recipient_id", NotificationFilter { recipient_id: "x".repeat(129), ..empty() }),
            ("state", NotificationFilter { state: 99, ..empty() }),
            ("trace_id", NotificationFilter { trace_id: "xyz".to_owned(), ..empty() }),
            ("source_event_id", NotificationFilter { source_event_id: "1".to_owned(), ..empty() }),
            ("kind", NotificationFilter { kind: 99, ..empty() }),
            ("channel", NotificationFilter { channel: "pigeon".to_owned(), ..empty() }),
            ("start_time", NotificationFilter { start_time: at(0, -1), ..empty() }),
            ("end_time", NotificationFilter { end_time: at(i64::MAX, 0), ..empty() }),
            ("end_time", NotificationFilter { start_time: at(7, 1), end_time: at(7, 0), ..empty() }),
        ];
        for (field, given) in bad {
            let failure = filter("filter.", &given).expect_err(field);
            assert_eq!(failure.code, Code::InvalidArgument);
            assert_eq!(failure.violations[0].0, format!("filter.{field}"));
        }
        assert_eq!(filter("", &empty()).ok(), Some(Filter::default()));
    }
}
