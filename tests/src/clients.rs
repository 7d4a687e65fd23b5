//! Clients of every service, whether or not it runs yet: each call connects if need be.

use std::{net::SocketAddr, time::Duration};

use p2phub_proto::{
    notify::v1::{
        notification_ingest_service_client::NotificationIngestServiceClient,
        notification_service_client::NotificationServiceClient, operator_service_client::OperatorServiceClient,
    },
    referral::v1::{
        audit_service_client::AuditServiceClient, broadcast_service_client::BroadcastServiceClient,
        leaderboard_service_client::LeaderboardServiceClient, ledger_service_client::LedgerServiceClient,
        partner_service_client::PartnerServiceClient, payment_service_client::PaymentServiceClient,
        payout_service_client::PayoutServiceClient,
    },
};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

/// Clients of one pair. A clone costs little; concurrent calls want one each.
#[derive(Clone)]
pub struct Clients {
    pub partners: PartnerServiceClient<Channel>,
    pub payments: PaymentServiceClient<Channel>,
    pub ledger: LedgerServiceClient<Channel>,
    pub payouts: PayoutServiceClient<Channel>,
    pub leaderboard: LeaderboardServiceClient<Channel>,
    pub audit: AuditServiceClient<Channel>,
    pub broadcasts: BroadcastServiceClient<Channel>,
    pub ingest: NotificationIngestServiceClient<Channel>,
    pub notifications: NotificationServiceClient<Channel>,
    pub operators: OperatorServiceClient<Channel>,
}

impl Clients {
    pub fn new(referral: SocketAddr, notify: SocketAddr) -> Self {
        let (referral, notify) = (channel(referral), channel(notify));
        Self {
            partners: PartnerServiceClient::new(referral.clone()),
            payments: PaymentServiceClient::new(referral.clone()),
            ledger: LedgerServiceClient::new(referral.clone()),
            payouts: PayoutServiceClient::new(referral.clone()),
            leaderboard: LeaderboardServiceClient::new(referral.clone()),
            audit: AuditServiceClient::new(referral.clone()),
            broadcasts: BroadcastServiceClient::new(referral),
            ingest: NotificationIngestServiceClient::new(notify.clone()),
            notifications: NotificationServiceClient::new(notify.clone()),
            operators: OperatorServiceClient::new(notify),
        }
    }
}

/// A channel that connects at its first call, and again after a break.
pub fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
    endpoint.connect_timeout(Duration::from_secs(5)).connect_lazy()
}

/// Whether a server's health is SERVING; `service` is empty for the server as a whole.
pub async fn is_serving(address: SocketAddr, service: &str) -> bool {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(channel(address)).check(request).await;
    answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
}
