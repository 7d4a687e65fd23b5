//! Who says whether the money of a payment came: one verifier for each method.

mod ton;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use referral_domain::{
    payment::{Method, Payment},
    reference::ExternalRef,
    ton::Finding,
};

pub(crate) use ton::{Ton, TonSettings};

/// One method's way to find out.
#[tonic::async_trait]
pub(crate) trait Verifier: Send + Sync {
    /// The method.
    fn method(&self) -> Method;

    /// Looks for the money of a payment that is IN_REVIEW, in the background. None: nobody can be asked; somebody has to say
    /// so with ConfirmPayment or RejectPayment.
    async fn verify(&self, payment: &Payment, external_ref: &ExternalRef, now: DateTime<Utc>) -> Option<Finding>;
}

/// The caller vouches.
pub(crate) struct Trusted;

#[tonic::async_trait]
impl Verifier for Trusted {
    fn method(&self) -> Method {
        Method::Trusted
    }

    async fn verify(&self, _: &Payment, _: &ExternalRef, _: DateTime<Utc>) -> Option<Finding> {
        None
    }
}

/// An operator decides.
pub(crate) struct Manual;

#[tonic::async_trait]
impl Verifier for Manual {
    fn method(&self) -> Method {
        Method::Manual
    }

    async fn verify(&self, _: &Payment, _: &ExternalRef, _: DateTime<Utc>) -> Option<Finding> {
        None
    }
}

/// Every verifier there is. A method that is closed takes no new payments; those that were handed in are decided all the same.
pub(crate) fn verifiers(ton: Option<&Arc<Ton>>) -> Vec<Arc<dyn Verifier>> {
    let mut verifiers: Vec<Arc<dyn Verifier>> = vec![Arc::new(Trusted), Arc::new(Manual)];
    if let Some(ton) = ton {
        verifiers.push(ton.clone());
    }
    verifiers
}
