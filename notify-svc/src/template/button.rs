//! Where a notification leads: a page of the application, or any other.

use anyhow::{Context, ensure};
use url::Url;

/// A link to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Button {
    /// One line, not empty.
    pub(crate) label: String,
    /// An absolute http or https URL.
    pub(crate) url: String,
}

impl Button {
    /// `path` is a page below the application's URL or an absolute http or https URL; `None` if it leads nowhere.
    pub(super) fn new(label: String, path: &str, app_url: Option<&AppUrl>) -> Option<Self> {
        if label.is_empty() || path.is_empty() {
            return None;
        }
        let url = match Url::parse(path) {
            Ok(url) => Some(url).filter(is_web),
            Err(url::ParseError::RelativeUrlWithoutBase) => app_url?.page(path),
            Err(_) => None,
        }?;
        Some(Self { label, url: url.into() })
    }
}

/// The application's URL, which ends in a slash.
#[derive(Clone, Debug)]
pub(super) struct AppUrl(Url);

impl AppUrl {
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut url = Url::parse(text).context("NOTIFY_APP_URL is not a URL")?;
        ensure!(is_web(&url), "NOTIFY_APP_URL is not an http or https URL");
        let is_bare = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        ensure!(is_bare && url.password().is_none(), "NOTIFY_APP_URL must end with its path and hold no user");
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Self(url))
    }

    /// A page below it; `None` for a path that leads elsewhere ("..", or another host in disguise).
    fn page(&self, path: &str) -> Option<Url> {
        let page = self.0.join(path.trim_start_matches('/')).ok()?;
        page.as_str().starts_with(self.0.as_str()).then_some(page)
    }
}

fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(path: &str, app_url: Option<&str>) -> Option<String> {
        let app_url = app_url.map(|url| AppUrl::parse(url).expect("a URL"));
        Button::new("Go".to_owned(), path, app_url.as_ref()).map(|button| button.url)
    }

    #[test]
    fn a_path_is_below_the_application() {
        let app = Some("https://app.example.org/p2p");
        for (path, expected) in [
            ("network", Some("https://app.example.org/p2p/network")),
            ("/network?tab=1#top", Some("https://app.example.org/p2p/network?tab=1#top")),
            ("//evil.example", Some("https://app.example.org/p2p/evil.example")),
            ("../admin", None),
            ("\\\\evil.example", None),
            ("https://example.org/a b", Some("https://example.org/a%20b")),
            ("javascript:alert(1)", None),
            ("mailto:a@example.org", None),
            ("https://", None),
            ("", None),
        ] {
            assert_eq!(url(path, app).as_deref(), expected, "{path}");
        }
        assert_eq!(url("network", None), None);
        assert_eq!(url("https://example.org", None).as_deref(), Some("https://example.org/"));
    }

    #[test]
    fn without_a_label_there_is_no_button() {
        assert_eq!(Button::new(String::new(), "https://example.org", None), None);
    }

    #[test]
    fn a_malformed_application_url_is_refused_by_the_variables_name() {
        for text in ["nowhere", "ftp://x", "https://", "https://x/?a=b", "https://x/#a", "https://user:word@x/"] {
            let error = AppUrl::parse(text).expect_err(text).to_string();
            assert!(error.contains("NOTIFY_APP_URL") && !error.contains("word"), "{error}");
        }
    }
}
