//! Keeps webhooks out of private networks: literal addresses are judged as they stand in the URL, names by what they resolve to
//! for the very connection, so that a name that changes its mind in between gains nothing.

use std::{
    error::Error,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::Context;
use notify_domain::{delivery::Outcome, state::OutcomeClass::Address, target::PrivateTargets};
use reqwest::{
    Client,
    dns::{Addrs, Name, Resolve, Resolving},
};
use tokio::net::lookup_host;
use url::{Host, Url};

use crate::channel::http;

/// A client that connects to allowed addresses only. A proxy would connect for it, wherever the proxy can: none is used.
pub(super) fn client(targets: PrivateTargets) -> anyhow::Result<Client> {
    let builder = http::builder().no_proxy().dns_resolver(Arc::new(Resolver(targets)));
    builder.build().context("no HTTP client")
}

/// The URL of an address, if something may be sent there at all.
pub(super) fn url(address: &str, targets: PrivateTargets) -> Result<Url, Outcome> {
    let malformed = || Outcome::new(Address, "ADDRESS_MALFORMED");
    let url = Url::parse(address).map_err(|_| malformed())?;
    let is_plain = url.username().is_empty() && url.password().is_none();
    if !matches!(url.scheme(), "http" | "https") || !is_plain {
        return Err(malformed());
    }
    let literal: IpAddr = match url.host().ok_or_else(malformed)? {
        Host::Domain(_) => return Ok(url),
        Host::Ipv4(address) => address.into(),
        Host::Ipv6(address) => address.into(),
    };
    targets.allow(literal).then_some(url).ok_or_else(private)
}

fn private() -> Outcome {
    Outcome::new(Address, "TARGET_PRIVATE")
}

/// What it means when the resolver let no address through; `None`: that's not why it failed.
pub(super) fn refused(error: &reqwest::Error) -> Option<Outcome> {
    let mut source = error.source();
    while let Some(error) = source {
        if error.is::<TargetPrivate>() {
            return Some(private());
        }
        source = error.source();
    }
    None
}

/// The system's resolver, without the addresses that aren't allowed.
struct Resolver(PrivateTargets);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let targets = self.0;
        Box::pin(async move {
            // The port is the connector's to fill in.
            let found: Vec<_> = lookup_host((name.as_str(), 0)).await?.collect();
            allowed(found, targets)
        })
    }
}

fn allowed(found: Vec<SocketAddr>, targets: PrivateTargets) -> Result<Addrs, Box<dyn Error + Send + Sync>> {
    let had_any = !found.is_empty();
    let mut allowed = found.into_iter().filter(move |address| targets.allow(address.ip())).peekable();
    if had_any && allowed.peek().is_none() {
        return Err(Box::new(TargetPrivate));
    }
    Ok(Box::new(allowed))
}

/// Every address of the name is private.
#[derive(Debug)]
struct TargetPrivate;

impl fmt::Display for TargetPrivate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("every address of the name is private")
    }
}

impl Error for TargetPrivate {}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn urls_that_are_no_target() {
        let reason = |address: &str, targets| url(address, targets).err().map(|outcome| outcome.reason.into_owned());
        for address in [
            "",
            "example.org",
            "//example.org",
            "ftp://example.org",
            "file:///etc/passwd",
            "unix:/run/socket",
            "http://",
            "http://user@example.org",
            "https://user:password@example.org/",
            "https://:password@example.org/",
            "http://exa mple.org/",
            "http://1.2.3.4.5.6/",
        ] {
            assert_eq!(reason(address, PrivateTargets::All).as_deref(), Some("ADDRESS_MALFORMED"), "{address}");
        }
        // An IPv4 address in every disguise that the URL standard knows.
        for host in [
            "127.0.0.1",
            "2130706433",
            "0x7f000001",
            "0177.1",
            "127.1",
            "%31%32%37.0.0.1",
            "127。0。0。1",
            "127.0.0.1.",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "0",
            "10.0.0.1",
            "169.254.169.254",
            "[64:ff9b::a9fe:a9fe]",
            "[2002:a9fe:a9fe::]",
            "[fe80::1]",
            "[fd00::1]",
        ] {
            let address = format!("http://{host}/");
            assert_eq!(reason(&address, PrivateTargets::None).as_deref(), Some("TARGET_PRIVATE"), "{address}");
            assert_eq!(reason(&address, PrivateTargets::All), None, "{address}");
        }
        for address in
            ["http://example.org", "https://8.8.8.8:8443/x?y", "http://localhost", "http://[2606:4700::1111]/"]
        {
            assert_eq!(reason(address, PrivateTargets::None), None, "{address}");
        }
    }

    #[test]
    fn of_what_a_name_resolves_to_only_allowed_addresses_are_left() {
        let found = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<_>>();
        let mixed = found(&["10.0.0.1:0", "8.8.8.8:0", "127.0.0.1:0", "[fd00::1]:0"]);
        let left: Vec<_> = allowed(mixed.clone(), PrivateTargets::None).expect("some").collect();
        assert_eq!(left, found(&["8.8.8.8:0"]));
        let left: Vec<_> = allowed(mixed.clone(), PrivateTargets::Loopback).expect("some").collect();
        assert_eq!(left, found(&["8.8.8.8:0", "127.0.0.1:0"]));
        assert_eq!(allowed(mixed, PrivateTargets::All).expect("some").count(), 4);
        let error = allowed(found(&["10.0.0.1:0"]), PrivateTargets::Loopback).err().expect("none is left");
        assert!(error.is::<TargetPrivate>());
        assert_eq!(allowed(Vec::new(), PrivateTargets::None).expect("not for that").count(), 0);
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_found_out_when_it_connects() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://localhost:{}/", listener.local_addr().expect("an address").port());
        let accepting = tokio::spawn(async move { listener.accept().await.map(drop) });
        let error = client(PrivateTargets::None).expect("a client").post(&url).send().await.expect_err("refused");
        assert_eq!(refused(&error), Some(Outcome::new(Address, "TARGET_PRIVATE")));
        assert!(!accepting.is_finished(), "it has connected");
        // Allowed, it connects; that nobody answers is another matter.
        let error = client(PrivateTargets::Loopback).expect("a client").post(&url).send().await.expect_err("no answer");
        assert_eq!(refused(&error), None);
        accepting.await.expect("no panic").expect("a connection");
    }
}
