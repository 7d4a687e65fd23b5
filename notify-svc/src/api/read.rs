//! Showing notifications: one, a list, how many.

use notify_domain::state::NotificationState;
use p2phub_proto::notify::v1 as wire;
use service::error::Failure;
use tonic::Code;

use super::{NotificationApi, fields, filter, page::Page};
use crate::{convert, store::notifications};

impl NotificationApi {
    pub(super) async fn get(
        &self,
        request: wire::GetNotificationRequest,
    ) -> Result<wire::GetNotificationResponse, Failure> {
        let id = fields::uuid("notification_id", &request.notification_id)?;
        let found = self.read(async |connection| notifications::get(connection, id).await).await?;
        let history = found.ok_or_else(|| {
            Failure::new(Code::NotFound, "NOTIFICATION_NOT_FOUND", format!("notification {id} is not known"))
        })?;
        Ok(wire::GetNotificationResponse { notification: Some(convert::notification(history)) })
    }

    pub(super) async fn list(
        &self,
        request: wire::ListNotificationsRequest,
    ) -> Result<wire::ListNotificationsResponse, Failure> {
        let filter = filter::of_list(&request)?;
        let page = Page::new(request.page_size, &request.page_token, filter::scope(&filter))?;
        let found = self
            .read(async |connection| notifications::list(connection, &filter, page.before, page.limit()).await)
            .await?;
        let (notifications, next_page_token) =
            page.cut(found, |history| history.notification.notification_id, convert::notification);
        Ok(wire::ListNotificationsResponse { notifications, next_page_token })
    }

    pub(super) async fn count(
        &self,
        request: wire::CountNotificationsRequest,
    ) -> Result<wire::CountNotificationsResponse, Failure> {
        let filter = filter::filter("filter.", &request.filter.unwrap_or_default())?;
        let counted = self.read(async |connection| notifications::count(connection, &filter).await).await?;
        let total = counted.iter().map(|(_, notifications)| notifications).sum();
        let mut counts: Vec<_> = counted
            .into_iter()
            .filter_map(|(state, notifications)| {
                let state = convert::notification_state(NotificationState::parse(&state)?).into();
                Some(wire::NotificationCount { state, notifications })
            })
            .collect();
        counts.sort_by_key(|count| count.state);
        Ok(wire::CountNotificationsResponse { total, counts })
    }
}
