//! What a notification says: one file per kind and locale, rendered at delivery.

use std::collections::BTreeMap;

use anyhow::Context;
use chrono::{DateTime, Utc};
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use notify_domain::kind::Kind;

/// The languages that there are templates for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locale {
    En,
    Ru,
}

impl Locale {
    const ALL: [Self; 2] = [Self::En, Self::Ru];

    /// By a language tag's first part ("ru-RU" is "ru"); any other language is English.
    pub(crate) fn of(tag: &str) -> Self {
        let language = tag.split(['-', '_']).next().unwrap_or_default();
        if language.eq_ignore_ascii_case("ru") { Self::Ru } else { Self::En }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Ru => "ru",
        }
    }
}

/// How the arguments' values are made safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Markup {
    /// The text is shown as it is.
    Plain,
    /// The text is HTML.
    Html,
}

impl Markup {
    const ALL: [Self; 2] = [Self::Plain, Self::Html];

    const fn extension(self) -> &'static str {
        match self {
            Self::Plain => "txt",
            Self::Html => "html",
        }
    }
}

macro_rules! sources {
    ($($kind:ident $file:literal,)+) => {
        /// Every kind with its English and Russian text.
        const SOURCES: &[(Kind, [&str; 2])] = &[$((
            Kind::$kind,
            [
                include_str!(concat!("../templates/en/", $file, ".txt")),
                include_str!(concat!("../templates/ru/", $file, ".txt")),
            ],
        ),)+];
    };
}

sources! {
    SignupL1 "signup_l1",
    SignupL2 "signup_l2",
    SignupDeeper "signup_deeper",
    LevelUp "level_up",
    CommissionReceived "commission_received",
    ProWelcome "pro_welcome",
    PaymentRejected "payment_rejected",
    ProExpiring3Days "pro_expiring_3_days",
    ProExpiring1Day "pro_expiring_1_day",
    ProExpired "pro_expired",
    CommissionReversed "commission_reversed",
    PayoutState "payout_state",
    OperatorBroadcast "operator_broadcast",
}

/// All templates, parsed and tried out.
#[derive(Debug)]
pub(crate) struct Templates(Environment<'static>);

impl Templates {
    /// Parses every template and renders it with its kind's arguments, so that a broken one stops the start.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(
            |name| {
                if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None }
            },
        );
        environment.add_filter("moment", moment);
        for (kind, texts) in SOURCES {
            for (locale, text) in Locale::ALL.into_iter().zip(texts) {
                for markup in Markup::ALL {
                    let name = name(*kind, locale, markup);
                    environment
                        .add_template_owned(name.clone(), text.trim_end())
                        .with_context(|| format!("template {name}"))?;
                }
            }
        }
        let templates = Self(environment);
        templates.try_out()?;
        Ok(templates)
    }

    fn try_out(&self) -> anyhow::Result<()> {
        for kind in Kind::ALL {
            let arguments = kind.arguments().iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect();
            for locale in Locale::ALL {
                for markup in Markup::ALL {
                    self.render(*kind, locale, markup, &arguments)
                        .with_context(|| format!("template {}", name(*kind, locale, markup)))?;
                }
            }
        }
        Ok(())
    }

    /// The text of a notification.
    pub(crate) fn render(
        &self,
        kind: Kind,
        locale: Locale,
        markup: Markup,
        arguments: &BTreeMap<String, String>,
    ) -> Result<String, minijinja::Error> {
        self.0.get_template(&name(kind, locale, markup))?.render(arguments)
    }
}

fn name(kind: Kind, locale: Locale, markup: Markup) -> String {
    format!("{}/{}.{}", locale.as_str(), kind.as_str(), markup.extension())
}

/// An RFC 3339 time as people of any language read it; anything else as it came.
fn moment(value: String) -> String {
    match DateTime::parse_from_rfc3339(&value) {
        Ok(time) => time.with_timezone(&Utc).format("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_kind_has_a_template_in_every_locale() {
        let templates = Templates::load().expect("all templates are sound");
        for kind in Kind::ALL {
            for locale in Locale::ALL {
                let values = kind.arguments().iter().map(|name| (*name, "x<y")).collect::<Vec<_>>();
                let text = templates.render(*kind, locale, Markup::Html, &arguments(&values)).expect("rendered");
                assert!(!text.is_empty() && !text.contains('<'), "{text}");
            }
        }
    }

    #[test]
    fn a_commission_reads_well() {
        let templates = Templates::load().expect("all templates are sound");
        let commission =
            arguments(&[("amount", "11.70"), ("asset", "USDT"), ("level", "1"), ("rate", "30"), ("name", "Ann")]);
        let text =
            templates.render(Kind::CommissionReceived, Locale::En, Markup::Plain, &commission).expect("rendered");
        assert_eq!(
            text,
            "You earned a commission of 11.70 USDT: 30% of the PRO purchase by Ann, level 1 of your network."
        );
    }

    #[test]
    fn values_are_escaped_where_the_text_is_html() {
        let templates = Templates::load().expect("all templates are sound");
        let signup = arguments(&[("name", "<b>&"), ("xp", "35")]);
        let html = templates.render(Kind::SignupL1, Locale::Ru, Markup::Html, &signup).expect("rendered");
        assert!(html.starts_with("&lt;b&gt;&amp; "), "{html}");
        let plain = templates.render(Kind::SignupL1, Locale::Ru, Markup::Plain, &signup).expect("rendered");
        assert!(plain.starts_with("<b>& "), "{plain}");
    }

    #[test]
    fn a_missing_argument_is_an_error() {
        let templates = Templates::load().expect("all templates are sound");
        assert!(templates.render(Kind::LevelUp, Locale::En, Markup::Plain, &arguments(&[("level", "2")])).is_err());
    }

    #[test]
    fn times_are_readable() {
        assert_eq!(moment("2026-12-22T10:00:59Z".to_owned()), "2026-12-22 10:00 UTC");
        assert_eq!(moment("soon".to_owned()), "soon");
    }

    #[test]
    fn locales() {
        for (tag, locale) in
            [("ru", Locale::Ru), ("ru-RU", Locale::Ru), ("RU_ru", Locale::Ru), ("", Locale::En), ("rut", Locale::En)]
        {
            assert_eq!(Locale::of(tag), locale, "{tag}");
        }
    }
}
