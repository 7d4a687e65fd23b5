//! Callers make things up without end; the services' series stay as many as they were.

use p2phub_proto::{
    notify::v1::{NotificationRequest, PauseChannelRequest, RecipientContact},
    referral::v1::{Contact, GetPartnerRequest, RegisterPartnerRequest, get_partner_request::Key},
};
use p2phub_tests::{
    builders::{registration, request_id},
    clients::channel,
    pair::Pair,
    prometheus::{Labels, Scrape},
};
use tonic::{Request, transport::Channel};

use super::{catalogue, chain_and_sale, of_notify, of_referral, processes, until_all_is_delivered, until_it_says};
use crate::{
    stream::{Producer, broadcast, message, record},
    wrong_input::raw,
};

/// In all that is made up, and nowhere else.
const MARK: &str = "zzhostile";

/// How many methods are made up for each service, and how much of everything else.
const METHODS: usize = 500;
const OTHERS: usize = 50;

/// One thing made up in each place where a caller can.
struct Hostile<'a> {
    pair: &'a Pair,
    channels: [Channel; 2],
    producer: Producer,
    number: usize,
}

impl<'a> Hostile<'a> {
    async fn new(pair: &'a Pair) -> Self {
        let channels = [pair.referral_address, pair.notify_address].map(channel);
        Self { pair, channels, producer: Producer::open(&pair.clients, "tests").await, number: 0 }
    }

    fn name(&mut self) -> String {
        self.number += 1;
        format!("{MARK}{}", self.number)
    }

    async fn strike(&mut self) {
        let name = self.name();
        self.callers(&name).await;
        self.contents(&name).await;
        self.events(&name).await;
    }

    async fn method(&mut self) {
        let name = self.name();
        for (channel, service) in self.channels.iter().zip(["referral.v1.PartnerService", "notify.v1.OperatorService"])
        {
            let path = match self.number % 2 {
                0 => format!("/p2phub.{service}/{name}"),
                _ => format!("/{name}.v1.Service/Method"),
            };
            raw::call(channel, &path, Request::new(Vec::new())).await.expect_err("no such method");
        }
    }

    async fn callers(&self, name: &str) {
        let mut partners = self.pair.clients.partners.clone();
        for caller in [name, "not a name"] {
            let key = Key::ExternalId(name.to_owned());
            let mut request = Request::new(GetPartnerRequest { key: Some(key) });
            request.metadata_mut().insert("p2phub-caller", caller.parse().expect("metadata"));
            partners.get_partner(request).await.expect_err("nobody");
        }
    }

    async fn contents(&self, name: &str) {
        let mut clients = self.pair.clients.clone();
        let contact = Contact { channel: name.to_owned(), address: name.to_owned() };
        let with_contact = RegisterPartnerRequest { contacts: vec![contact], ..registration(name, "") };
        clients.partners.register_partner(with_contact).await.expect_err("no such channel");
        let with_locale = RegisterPartnerRequest { locale: name.to_owned(), ..registration(name, name) };
        clients.partners.register_partner(with_locale).await.expect("a registration");
        let pause = PauseChannelRequest { request_id: request_id(), channel: name.to_owned(), reason: name.to_owned() };
        clients.operators.pause_channel(pause).await.expect_err("no such channel");
    }

    async fn events(&mut self, name: &str) {
        let contacts = vec![RecipientContact { channel: name.to_owned(), address: name.to_owned() }];
        let fine = NotificationRequest { locale: name.to_owned(), contacts, ..broadcast(name) };
        let kind = 1000 + i32::try_from(self.number).expect("a number");
        let unknown = NotificationRequest { kind, ..broadcast(name) };
        for request in [fine, unknown] {
            self.producer.publish(&[record(message(vec![request]))]).await;
        }
    }
}

/// Every series there is; those about statements aside, which jobs make whenever they like.
fn series(scrape: &Scrape) -> Vec<(String, Labels)> {
    let families = scrape.families().into_iter().filter(|family| !family.starts_with("db_"));
    families.flat_map(|family| scrape.series(&family).into_iter().map(move |labels| (family.clone(), labels))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_callers_make_up_adds_no_series() {
    let pair = processes().await;
    chain_and_sale(&pair).await;
    until_it_says(&pair, "p2phub_ledger_check_runs_total", &[("outcome", "ok")], 1.0).await;
    let mut hostile = Hostile::new(&pair).await;
    hostile.method().await;
    hostile.strike().await;
    until_all_is_delivered(&pair).await;
    let before = [series(&of_referral(&pair).await), series(&of_notify(&pair).await)];
    assert!(before.iter().all(|series| series.len() > 20), "{before:?}");

    for _ in 0..METHODS {
        hostile.method().await;
    }
    for _ in 0..OTHERS {
        hostile.strike().await;
    }
    until_all_is_delivered(&pair).await;
    for (before, scrape) in before.into_iter().zip([of_referral(&pair).await, of_notify(&pair).await]) {
        catalogue::check(&scrape);
        assert_eq!(series(&scrape), before);
        let unknown = [("rpc_method", "_OTHER")];
        let calls = scrape.value("rpc_server_call_duration_seconds_count", &unknown);
        assert_eq!(calls, Some(501.0), "all were counted");
    }
    pair.finish().await;
}
