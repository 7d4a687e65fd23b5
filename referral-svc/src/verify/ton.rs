//! Asks an endpoint that is compatible with TonAPI (<https://docs.tonconsole.com/tonapi>) about transactions, and for the
//! rate of TON.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use referral_domain::{
    money::Asset,
    payment::{Method, Payment},
    reference::ExternalRef,
    ton::{Facts, Finding, Looked, TonOffer, TonTerms, judge, rate_minor_units, raw_address},
};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, header, redirect};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::Verifier;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes read of an answer; a transaction with many messages is some ten of kilobytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// How payments in TON are made and verified.
#[derive(Clone)]
pub(crate) struct TonSettings {
    /// The account to pay to, raw.
    pub(crate) address: String,
    /// Where to ask.
    pub(crate) api_url: Url,
    /// A secret.
    pub(crate) api_key: Option<String>,
    /// In hundredths of a percent.
    pub(crate) tolerance_bps: u16,
    /// How old a rate may be.
    pub(crate) rate_max_age: TimeDelta,
}

/// The chain, as an endpoint tells it.
pub(crate) struct Ton {
    client: Client,
    settings: TonSettings,
}

#[derive(Deserialize)]
struct Transaction {
    hash: String,
    success: bool,
    utime: i64,
    in_msg: Option<Message>,
    #[serde(default)]
    out_msgs: Vec<Message>,
}

/// What a 404 of the API says, an `error`; a proxy's, or a wrong address's, says something else.
type Unknown = HashMap<String, serde_json::Value>;

#[derive(Deserialize)]
struct Message {
    hash: Option<String>,
    #[serde(default)]
    value: i64,
    // It came back, since the receiver could not take it.
    #[serde(default)]
    bounced: bool,
    destination: Option<Account>,
    decoded_op_name: Option<String>,
    decoded_body: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Account {
    address: String,
}

#[derive(Deserialize)]
struct Rates {
    rates: HashMap<String, Prices>,
}

#[derive(Deserialize)]
struct Prices {
    // The number's text: it must not pass through a float.
    prices: HashMap<String, Box<RawValue>>,
}

impl Ton {
    /// A client; nothing is asked yet.
    pub(crate) fn new(settings: TonSettings) -> anyhow::Result<Self> {
        // Telemetry installs it in the binary; a second time does nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("p2phub-referral/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .build()
            .context("no HTTP client")?;
        Ok(Self { client, settings })
    }

    /// What payments are made of, while no rate is known yet.
    pub(crate) fn offer(&self) -> TonOffer {
        TonOffer {
            address: self.settings.address.clone(),
            tolerance_bps: self.settings.tolerance_bps,
            rate_max_age: self.settings.rate_max_age,
            rate: None,
        }
    }

    /// Who tells the rate.
    pub(crate) fn source(&self) -> String {
        self.settings.api_url.host_str().unwrap_or_default().to_owned()
    }

    /// The rate now, in minor units of USDT, which counts as a US dollar. Errors name no URL: it may hold a secret.
    pub(crate) async fn rate(&self) -> anyhow::Result<i64> {
        let request = self.get(&["v2", "rates"], Some("tokens=ton&currencies=usd"))?;
        let response = request.send().await.map_err(reqwest::Error::without_url)?;
        anyhow::ensure!(response.status().is_success(), "HTTP status {}", response.status().as_u16());
        let rates: Rates = read(response).await.context("the answer can't be read")?;
        let price = rates.rates.get("TON").and_then(|ton| ton.prices.get("USD")).context("no price of TON in USD")?;
        rate_minor_units(price.get(), Asset::Usdt).context("the price is no decimal above zero")
    }

    fn get(&self, path: &[&str], query: Option<&str>) -> anyhow::Result<RequestBuilder> {
        let mut url = self.settings.api_url.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("TON_API_URL can't have a path"))?
            .pop_if_empty()
            .extend(path);
        url.set_query(query);
        let request = self.client.get(url);
        Ok(match &self.settings.api_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        })
    }

    /// The transaction that received the money: the one of that hash, or what a message that it sent to us came to.
    async fn look_up(&self, terms: &TonTerms, hash: &str) -> Looked {
        let found = match self.transaction(&["v2", "blockchain", "transactions", hash]).await {
            // Whatever else answers under this address is no chain.
            Ok(transaction) if hash_of(&transaction.hash).is_none_or(|told| told.as_str() != hash) => {
                return Looked::Unavailable(None);
            }
            Ok(transaction) => transaction,
            Err(looked) => return looked,
        };
        let sent: Vec<&Message> = found.out_msgs.iter().filter(|message| is_to(terms, message)).collect();
        let fits = |message: &&&Message| comment(message).as_deref() == Some(terms.memo.as_str());
        // Of several that don't say what they are for, none is this payment's.
        let sent = sent.iter().find(fits).or(sent.first().filter(|_| sent.len() == 1));
        let Some(message) = sent.and_then(|message| message.hash.as_deref()) else {
            return facts(found);
        };
        match self.transaction(&["v2", "blockchain", "messages", message, "transaction"]).await {
            Ok(received) => facts(received),
            Err(looked) => looked,
        }
    }

    async fn transaction(&self, path: &[&str]) -> Result<Transaction, Looked> {
        let request = self.get(path, None).map_err(|_| Looked::Unavailable(None))?;
        let response = request.send().await.map_err(|_| Looked::Unavailable(None))?;
        match response.status() {
            StatusCode::OK => read(response).await.ok_or(Looked::Unavailable(None)),
            StatusCode::NOT_FOUND => match read::<Unknown>(response).await {
                Some(unknown) if unknown.contains_key("error") => Err(Looked::NotFound),
                _ => Err(Looked::Unavailable(None)),
            },
            _ => Err(Looked::Unavailable(retry_after(&response))),
        }
    }
}

#[tonic::async_trait]
impl Verifier for Ton {
    fn method(&self) -> Method {
        Method::Ton
    }

    async fn verify(&self, payment: &Payment, external_ref: &ExternalRef, now: DateTime<Utc>) -> Option<Finding> {
        let ton = payment.ton.as_ref()?;
        let hash = external_ref.as_str();
        if hash_of(hash).is_none() {
            return Some(Finding::NotPaid("NOT_A_TRANSACTION_HASH", None));
        }
        let asked = Instant::now();
        let looked = self.look_up(&ton.terms, hash).await;
        // The next attempt counts from the answer.
        let now = now + asked.elapsed();
        Some(judge(&ton.terms, payment.create_time, &ton.verification, &looked, now, rand::random()))
    }
}

fn destination(message: &Message) -> Option<String> {
    message.destination.as_ref().and_then(|account| raw_address(&account.address).ok())
}

fn is_to(terms: &TonTerms, message: &Message) -> bool {
    destination(message).as_ref() == Some(&terms.address)
}

/// A transaction's hash, in the spelling of references.
fn hash_of(text: &str) -> Option<ExternalRef> {
    let is_hash = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    ExternalRef::normalise(text).ok().filter(|_| is_hash)
}

/// Of what the transaction received; money that came back was not received.
fn facts(transaction: Transaction) -> Looked {
    // A transaction without a hash is no chain's.
    let Some(hash) = hash_of(&transaction.hash) else { return Looked::Unavailable(None) };
    let received = transaction.in_msg.filter(|message| !message.bounced);
    Looked::Found(Facts {
        hash,
        success: transaction.success,
        time: DateTime::from_timestamp(transaction.utime, 0).unwrap_or_default(),
        destination: received.as_ref().and_then(destination),
        nanotons: received.as_ref().map_or(0, |message| message.value),
        comment: received.as_ref().and_then(comment).unwrap_or_default(),
    })
}

fn comment(message: &Message) -> Option<String> {
    let is_text = message.decoded_op_name.as_deref() == Some("text_comment");
    let text = message.decoded_body.as_ref().filter(|_| is_text)?.get("text")?.as_str()?;
    Some(text.to_owned())
}

/// A JSON answer of bounded length.
async fn read<T: DeserializeOwned>(mut response: Response) -> Option<T> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            return None;
        }
    }
    serde_json::from_slice(&body).ok()
}

/// How many seconds the server asks to wait.
fn retry_after(response: &Response) -> Option<TimeDelta> {
    let wait = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    TimeDelta::try_seconds(wait).filter(|wait| *wait > TimeDelta::zero() && *wait <= TimeDelta::days(1))
}
