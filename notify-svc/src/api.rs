//! The notifications API: thin handlers that check, ask the store and convert.

mod page;
mod preview;

use std::{pin::Pin, sync::Arc};

use notify_domain::event::RECIPIENT_BYTES_MAX;
use p2phub_proto::notify::v1::{
    self as wire, CancelNotificationRequest, CancelNotificationResponse, GetNotificationRequest,
    GetNotificationResponse, GetPreferencesRequest, GetPreferencesResponse, ListNotificationsRequest,
    ListNotificationsResponse, RedriveNotificationsRequest, RedriveNotificationsResponse, SetPreferencesRequest,
    SetPreferencesResponse, WatchDeliveriesRequest, WatchDeliveriesResponse,
    notification_service_server::NotificationService,
};
use service::{database, database::Pool, error::Failure};
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use crate::{
    convert, status,
    store::notifications::{self, Filter},
    template::Templates,
};

/// The notification service.
#[derive(Clone)]
pub(crate) struct NotificationApi {
    pool: Pool,
    templates: Arc<Templates>,
}

impl NotificationApi {
    pub(crate) fn new(pool: Pool, templates: Arc<Templates>) -> Self {
        Self { pool, templates }
    }
}

#[tonic::async_trait]
impl NotificationService for NotificationApi {
    type WatchDeliveriesStream = Pin<Box<dyn Stream<Item = Result<WatchDeliveriesResponse, Status>> + Send>>;

    async fn get_notification(
        &self,
        request: Request<GetNotificationRequest>,
    ) -> Result<Response<GetNotificationResponse>, Status> {
        let id = uuid("notification_id", &request.into_inner().notification_id).map_err(status::of)?;
        let mut connection = database::connect(&self.pool).await.map_err(|error| status::of_store(&error))?;
        let history = notifications::get(&mut connection, id)
            .await
            .map_err(|error| status::of_store(&error))?
            .ok_or_else(|| {
                let message = format!("notification {id} is not known");
                status::of(Failure::new(Code::NotFound, "NOTIFICATION_NOT_FOUND", message))
            })?;
        Ok(Response::new(GetNotificationResponse { notification: Some(convert::notification(history)) }))
    }

    async fn list_notifications(
        &self,
        request: Request<ListNotificationsRequest>,
    ) -> Result<Response<ListNotificationsResponse>, Status> {
        let request = request.into_inner();
        let filter = filter(&request).map_err(status::of)?;
        let size = page::size(request.page_size).map_err(status::of)?;
        let before = page::read_token(&request.page_token, &filter).map_err(status::of)?;
        let mut connection = database::connect(&self.pool).await.map_err(|error| status::of_store(&error))?;
        // One more than the page tells whether there is another.
        let limit = i64::try_from(size).unwrap_or(i64::MAX).saturating_add(1);
        let found = notifications::list(&mut connection, &filter, before, limit)
            .await
            .map_err(|error| status::of_store(&error))?;
        let ids: Vec<Uuid> = found.iter().map(|history| history.notification.notification_id).collect();
        let notifications = page::cut(found.into_iter().map(convert::notification), size);
        let (shown, left) = ids.split_at(notifications.len());
        let next_page_token = match shown.last() {
            Some(last) if !left.is_empty() => page::make_token(*last, &filter),
            _ => String::new(),
        };
        Ok(Response::new(ListNotificationsResponse { notifications, next_page_token }))
    }

    async fn watch_deliveries(
        &self,
        _: Request<WatchDeliveriesRequest>,
    ) -> Result<Response<Self::WatchDeliveriesStream>, Status> {
        Err(not_built("WatchDeliveries"))
    }

    async fn cancel_notification(
        &self,
        _: Request<CancelNotificationRequest>,
    ) -> Result<Response<CancelNotificationResponse>, Status> {
        Err(not_built("CancelNotification"))
    }

    async fn redrive_notifications(
        &self,
        _: Request<RedriveNotificationsRequest>,
    ) -> Result<Response<RedriveNotificationsResponse>, Status> {
        Err(not_built("RedriveNotifications"))
    }

    async fn set_preferences(
        &self,
        _: Request<SetPreferencesRequest>,
    ) -> Result<Response<SetPreferencesResponse>, Status> {
        Err(not_built("SetPreferences"))
    }

    async fn get_preferences(
        &self,
        _: Request<GetPreferencesRequest>,
    ) -> Result<Response<GetPreferencesResponse>, Status> {
        Err(not_built("GetPreferences"))
    }

    async fn count_notifications(
        &self,
        _: Request<wire::CountNotificationsRequest>,
    ) -> Result<Response<wire::CountNotificationsResponse>, Status> {
        Err(not_built("CountNotifications"))
    }

    async fn unsubscribe(
        &self,
        _: Request<wire::UnsubscribeRequest>,
    ) -> Result<Response<wire::UnsubscribeResponse>, Status> {
        Err(not_built("Unsubscribe"))
    }

    async fn render_preview(
        &self,
        request: Request<wire::RenderPreviewRequest>,
    ) -> Result<Response<wire::RenderPreviewResponse>, Status> {
        preview::render(&self.templates, request.into_inner()).map(Response::new).map_err(status::of)
    }
}

fn not_built(method: &str) -> Status {
    status::of(Failure::unimplemented(method))
}

fn uuid(field: &str, text: &str) -> Result<Uuid, Failure> {
    Uuid::try_parse(text).map_err(|_| Failure::violation(field, "must be a UUID"))
}

fn filter(request: &ListNotificationsRequest) -> Result<Filter, Failure> {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let recipient_id = given(&request.recipient_id);
    if recipient_id.as_ref().is_some_and(|id| id.len() > RECIPIENT_BYTES_MAX || id.contains('\0')) {
        let description = format!("must be at most {RECIPIENT_BYTES_MAX} bytes, without NUL");
        return Err(Failure::violation("recipient_id", description));
    }
    let state = wire::NotificationState::try_from(request.state)
        .map_err(|_| Failure::violation("state", "is not a known state"))?;
    let trace_id = given(&request.trace_id).map(|id| id.to_ascii_lowercase());
    if trace_id.as_ref().is_some_and(|id| id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        return Err(Failure::violation("trace_id", "must be 32 hex digits"));
    }
    let source_event_id = given(&request.source_event_id).map(|id| uuid("source_event_id", &id)).transpose()?;
    Ok(Filter { recipient_id, state: convert::state_filter(state), trace_id, source_event_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_filters_name_their_field() {
        let empty = ListNotificationsRequest::default;
        let bad = [
            ("recipient_id", ListNotificationsRequest { recipient_id: "x".repeat(129), ..empty() }),
            ("state", ListNotificationsRequest { state: 99, ..empty() }),
            ("trace_id", ListNotificationsRequest { trace_id: "xyz".to_owned(), ..empty() }),
            ("source_event_id", ListNotificationsRequest { source_event_id: "1".to_owned(), ..empty() }),
        ];
        for (field, request) in bad {
            let failure = filter(&request).expect_err(field);
            assert_eq!(failure.code, Code::InvalidArgument);
            assert_eq!(failure.violations[0].0, field);
        }
        assert_eq!(filter(&empty()).ok(), Some(Filter::default()));
    }
}
