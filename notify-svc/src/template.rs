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

/// A notification in words, in plain text: each channel escapes and cuts it as it must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rendered {
    /// One line.
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) button: Option<Button>,
}

/// Where a notification leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Button {
    pub(crate) label: String,
    /// An absolute http or https URL.
    pub(crate) url: String,
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
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.add_filter("moment", moment);
        for (kind, texts) in SOURCES {
            for (locale, text) in Locale::ALL.into_iter().zip(texts) {
                let name = name(*kind, locale);
                environment
                    .add_template_owned(name.clone(), text.trim_end())
                    .with_context(|| format!("template {name}"))?;
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
                self.render(*kind, locale, &arguments).with_context(|| format!("template {}", name(*kind, locale)))?;
            }
        }
        Ok(())
    }

    /// A notification in words.
    pub(crate) fn render(
        &self,
        kind: Kind,
        locale: Locale,
        arguments: &BTreeMap<String, String>,
    ) -> Result<Rendered, minijinja::Error> {
        let text = self.0.get_template(&name(kind, locale))?.render(arguments)?;
        Ok(Rendered { subject: String::new(), text, button: None })
    }
}

fn name(kind: Kind, locale: Locale) -> String {
    format!("{}/{}", locale.as_str(), kind.as_str())
}

/// An RFC 3339 time as people of any language read it; anything else as it came.
fn moment(value: String) -> String {
    match DateTime::parse_from_rfc3339(&value) {
        Ok(time) => time.with_timezone(&Utc).format("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => value,
    }
}
