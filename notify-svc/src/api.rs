//! The notifications API and the operators': thin handlers that check, ask the store and convert.

mod addresses;
mod audit;
mod cancel;
mod channels;
mod connection;
mod fields;
mod filter;
mod jobs;
mod once;
mod operators;
mod page;
mod preferences;
mod preview;
mod read;
mod redrive;
mod watch;
mod wishes;

use std::sync::Arc;

use notify_domain::channel::Channels;
use p2phub_proto::notify::v1::{
    self as wire, CancelNotificationRequest, CancelNotificationResponse, GetNotificationRequest,
    GetNotificationResponse, GetPreferencesRequest, GetPreferencesResponse, ListNotificationsRequest,
    ListNotificationsResponse, RedriveNotificationsRequest, RedriveNotificationsResponse, SetPreferencesRequest,
    SetPreferencesResponse, WatchDeliveriesRequest, notification_service_server::NotificationService,
};
use service::{database::Pool, error::Failure};
use tokio::sync::Notify;
use tonic::{Request, Response, Status};

use crate::{feed::Feed, status, template::Templates, unsubscribe::UnsubscribeTokens};

/// Both services.
#[derive(Clone)]
pub(crate) struct NotificationApi {
    pub(crate) pool: Pool,
    /// Those that are on.
    pub(crate) channels: Channels,
    pub(crate) templates: Arc<Templates>,
    pub(crate) unsubscribe: UnsubscribeTokens,
    pub(crate) feed: Feed,
    /// Told when there is a new job.
    pub(crate) job_created: Arc<Notify>,
}

fn answer<T>(answer: Result<T, Failure>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(status::of)
}

#[tonic::async_trait]
impl NotificationService for NotificationApi {
    type WatchDeliveriesStream = watch::Changes;

    async fn get_notification(
        &self,
        request: Request<GetNotificationRequest>,
    ) -> Result<Response<GetNotificationResponse>, Status> {
        answer(self.get(request.into_inner()).await)
    }

    async fn list_notifications(
        &self,
        request: Request<ListNotificationsRequest>,
    ) -> Result<Response<ListNotificationsResponse>, Status> {
        answer(self.list(request.into_inner()).await)
    }

    async fn watch_deliveries(
        &self,
        request: Request<WatchDeliveriesRequest>,
    ) -> Result<Response<Self::WatchDeliveriesStream>, Status> {
        answer(self.watch(request.into_inner()).await)
    }

    async fn cancel_notification(
        &self,
        request: Request<CancelNotificationRequest>,
    ) -> Result<Response<CancelNotificationResponse>, Status> {
        self.once(request, |message| &mut message.request_id, cancel::Cancel::check).await
    }

    async fn redrive_notifications(
        &self,
        request: Request<RedriveNotificationsRequest>,
    ) -> Result<Response<RedriveNotificationsResponse>, Status> {
        self.redrive(request).await
    }

    async fn set_preferences(
        &self,
        request: Request<SetPreferencesRequest>,
    ) -> Result<Response<SetPreferencesResponse>, Status> {
        self.once(request, |message| &mut message.request_id, preferences::SetPreferences::check).await
    }

    async fn get_preferences(
        &self,
        request: Request<GetPreferencesRequest>,
    ) -> Result<Response<GetPreferencesResponse>, Status> {
        answer(self.preferences(request.into_inner()).await)
    }

    async fn count_notifications(
        &self,
        request: Request<wire::CountNotificationsRequest>,
    ) -> Result<Response<wire::CountNotificationsResponse>, Status> {
        answer(self.count(request.into_inner()).await)
    }

    async fn unsubscribe(
        &self,
        request: Request<wire::UnsubscribeRequest>,
    ) -> Result<Response<wire::UnsubscribeResponse>, Status> {
        let check = |message: &_| preferences::Unsubscribe::check(message, &self.unsubscribe);
        self.once(request, |message| &mut message.request_id, check).await
    }

    async fn render_preview(
        &self,
        request: Request<wire::RenderPreviewRequest>,
    ) -> Result<Response<wire::RenderPreviewResponse>, Status> {
        preview::render(&self.templates, request.into_inner()).map(Response::new).map_err(status::of)
    }
}
