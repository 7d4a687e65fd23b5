//! The e-mail channel's settings: what they mean, and what of them stops the start. No error shows what may hold a password.

use std::{fs, net::IpAddr};

use anyhow::{Context, bail, ensure};
use lettre::{
    message::Mailbox,
    transport::smtp::{
        SUBMISSION_PORT, SUBMISSIONS_PORT,
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
        extension::ClientId,
    },
};
use percent_encoding::percent_decode_str;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use url::Url;

use super::{connection::Server, letter::Letterhead};
use crate::config::Config;

/// With a token behind it, it still fits into one line of a header.
const UNSUBSCRIBE_URL_BYTES_MAX: usize = 500;

/// The sender and the way out, from `SMTP_FROM` and `UNSUBSCRIBE_URL`.
pub(super) fn letterhead(config: &Config) -> anyhow::Result<Letterhead> {
    let from: Mailbox = config.smtp_from.parse().context("SMTP_FROM is not an address, nor a name and an address")?;
    let sound = config.smtp_from.chars().all(|character| !character.is_control());
    ensure!(sound && from.email.to_string().is_ascii(), "SMTP_FROM holds characters that an address can't have");
    let unsubscribe_url = config.unsubscribe_url.as_deref().map(unsubscribe_url).transpose()?;
    Ok(Letterhead { from, unsubscribe_url })
}

fn unsubscribe_url(text: &str) -> anyhow::Result<Url> {
    let url = Url::parse(text).context("UNSUBSCRIBE_URL is not a URL")?;
    ensure!(url.scheme() == "https", "UNSUBSCRIBE_URL is not an https URL");
    ensure!(url.username().is_empty() && url.password().is_none(), "UNSUBSCRIBE_URL holds a user or a password");
    ensure!(url.fragment().is_none(), "UNSUBSCRIBE_URL holds a fragment, which no server sees");
    ensure!(url.as_str().len() <= UNSUBSCRIBE_URL_BYTES_MAX, "UNSUBSCRIBE_URL is too long");
    Ok(url)
}

/// Whether the connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encryption {
    Implicit,
    StartTls,
    Opportunistic,
    None,
}

/// The server, from `SMTP_URL` and `SMTP_CA_FILE`; `None` when there is none.
pub(super) fn server(config: &Config) -> anyhow::Result<Option<Server>> {
    let roots = roots(config)?;
    let Some(text) = &config.smtp_url else {
        return Ok(None);
    };
    let url = Url::parse(text).ok().context("SMTP_URL is not a URL")?;
    ensure!(matches!(url.scheme(), "smtp" | "smtps"), "SMTP_URL is not an smtp or smtps URL");
    ensure!(matches!(url.path(), "" | "/") && url.fragment().is_none(), "SMTP_URL holds more than a server");
    let host = url.host_str().filter(|host| !host.is_empty()).context("SMTP_URL names no host")?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let encryption = encryption(&url, &host)?;
    let default_port = if encryption == Encryption::Implicit { SUBMISSIONS_PORT } else { SUBMISSION_PORT };
    let port = url.port().unwrap_or(default_port);
    ensure!(port != 0, "SMTP_URL names port 0");
    let tls = || {
        let builder = roots
            .into_iter()
            .fold(TlsParameters::builder(host.clone()), |builder, root| builder.add_root_certificate(root));
        builder
            .build()
            .ok()
            .context("SMTP_URL: TLS can't be set up with the certificates of the system and SMTP_CA_FILE")
    };
    let tls = match encryption {
        Encryption::Implicit => Tls::Wrapper(tls()?),
        Encryption::StartTls => Tls::Required(tls()?),
        Encryption::Opportunistic => Tls::Opportunistic(tls()?),
        Encryption::None => Tls::None,
    };
    let credentials = credentials(&url)?;
    ensure!(
        credentials.is_none() || encryption != Encryption::None || is_loopback(&host),
        "SMTP_URL: with tls=none the password would cross the network in clear"
    );
    Ok(Some(Server { host, port, tls, hello: ClientId::default(), credentials }))
}

fn encryption(url: &Url, host: &str) -> anyhow::Result<Encryption> {
    let mut wishes = url.query_pairs();
    let wish = wishes.next();
    ensure!(wishes.next().is_none(), "SMTP_URL holds more than one parameter");
    let wish = match &wish {
        None => None,
        Some((name, value)) if name == "tls" => Some(value.as_ref()),
        Some(_) => bail!("SMTP_URL holds a parameter other than tls"),
    };
    match (url.scheme(), wish) {
        ("smtps", None) => Ok(Encryption::Implicit),
        ("smtps", Some(_)) => bail!("SMTP_URL: smtps always is encrypted, and takes no tls parameter"),
        (_, None) if is_loopback(host) => Ok(Encryption::Opportunistic),
        (_, None | Some("required")) => Ok(Encryption::StartTls),
        (_, Some("opportunistic")) => Ok(Encryption::Opportunistic),
        (_, Some("none")) => Ok(Encryption::None),
        (_, Some(_)) => bail!("SMTP_URL: tls is neither required, opportunistic nor none"),
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn credentials(url: &Url) -> anyhow::Result<Option<Credentials>> {
    let decoded = |text| percent_decode_str(text).decode_utf8().ok().context("SMTP_URL: user or password is not UTF-8");
    match (url.username(), url.password()) {
        ("", None) => Ok(None),
        ("", Some(_)) => bail!("SMTP_URL holds a password without a user"),
        (_, None) => bail!("SMTP_URL holds a user without a password"),
        (user, Some(password)) => {
            let (user, password) = (decoded(user)?.into_owned(), decoded(password)?.into_owned());
            // NUL parts the fields of AUTH PLAIN (RFC 4616).
            ensure!(!user.contains('\0') && !password.contains('\0'), "SMTP_URL: user or password holds a NUL");
            Ok(Some(Credentials::new(user, password)))
        }
    }
}

fn roots(config: &Config) -> anyhow::Result<Vec<Certificate>> {
    let Some(path) = &config.smtp_ca_file else {
        return Ok(Vec::new());
    };
    let bytes = fs::read(path).context("SMTP_CA_FILE can't be read")?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = certificates.ok().context("SMTP_CA_FILE is not PEM")?;
    ensure!(!certificates.is_empty(), "SMTP_CA_FILE holds no certificate");
    let mut checked = rustls::RootCertStore::empty();
    for certificate in &certificates {
        checked.add(certificate.clone()).ok().context("SMTP_CA_FILE holds something that is no certificate")?;
    }
    let roots = certificates.into_iter().map(|certificate| Certificate::from_der(certificate.to_vec()));
    roots.collect::<Result<_, _>>().ok().context("SMTP_CA_FILE holds something that is no certificate")
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
