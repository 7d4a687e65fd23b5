//! What a notification says: one file per kind and locale, rendered at delivery.

mod button;
mod source;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use notify_domain::kind::Kind;

use button::AppUrl;
pub(crate) use button::Button;
use source::Source;

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

macro_rules! files {
    ($($kind:ident $file:literal,)+) => {
        /// A kind's English and Russian file: without both of them this doesn't compile.
        const fn files(kind: Kind) -> [&'static str; 2] {
            match kind {
                $(Kind::$kind => [
                    include_str!(concat!("../templates/en/", $file, ".txt")),
                    include_str!(concat!("../templates/ru/", $file, ".txt")),
                ],)+
            }
        }
    };
}

files! {
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

/// The parts of a template file, each a template by itself.
const SUBJECT: &str = "subject";
const TEXT: &str = "text";
const LABEL: &str = "label";
const PATH: &str = "path";

/// All templates, parsed and tried out.
#[derive(Debug)]
pub(crate) struct Templates {
    environment: Environment<'static>,
    app_url: Option<AppUrl>,
}

impl Templates {
    /// Parses every template and renders it with its kind's arguments, so that a broken one stops the start. Buttons lead
    /// below `app_url`, the setting NOTIFY_APP_URL.
    pub(crate) fn load(app_url: Option<&str>) -> anyhow::Result<Self> {
        Self::of(Kind::ALL.iter().map(|kind| (*kind, files(*kind))), app_url)
    }

    fn of(files: impl IntoIterator<Item = (Kind, [&'static str; 2])>, app_url: Option<&str>) -> anyhow::Result<Self> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.add_filter("moment", moment);
        let app_url = app_url.map(AppUrl::parse).transpose()?;
        let mut templates = Self { environment, app_url };
        for (kind, files) in files {
            for (locale, file) in Locale::ALL.into_iter().zip(files) {
                let tried = templates.add(kind, locale, file).and_then(|()| templates.try_out(kind, locale));
                tried.with_context(|| format!("template {}/{}", locale.as_str(), kind.as_str()))?;
            }
        }
        Ok(templates)
    }

    fn add(&mut self, kind: Kind, locale: Locale, file: &str) -> anyhow::Result<()> {
        let source = Source::parse(file)?;
        let (label, path) = source.button.unwrap_or_default();
        for (part, text) in [(SUBJECT, source.subject), (TEXT, source.text), (LABEL, label), (PATH, path)] {
            self.environment.add_template_owned(name(kind, locale, part), text.to_owned())?;
        }
        Ok(())
    }

    /// It uses no arguments but its kind's, and it renders whether they are empty or not.
    fn try_out(&self, kind: Kind, locale: Locale) -> anyhow::Result<()> {
        let known: BTreeSet<&str> = [kind.arguments(), kind.optional_arguments()].concat().into_iter().collect();
        for part in [SUBJECT, TEXT, LABEL, PATH] {
            let used = self.environment.get_template(&name(kind, locale, part))?.undeclared_variables(false);
            let unknown = used.iter().find(|variable| !known.contains(variable.as_str()));
            ensure!(unknown.is_none(), "{} is no argument of this kind", unknown.map_or("", String::as_str));
        }
        for value in ["1", ""] {
            let arguments = known.iter().map(|argument| ((*argument).to_owned(), value.to_owned())).collect();
            let subject = self.part(kind, locale, SUBJECT, &context(kind, &arguments))?;
            ensure!(!subject.trim().is_empty(), "the subject is empty");
            ensure!(!subject.contains(breaks_line), "the subject has more than one line");
            self.render(kind, locale, &arguments)?;
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
        let arguments = context(kind, arguments);
        let label = one_line(&self.part(kind, locale, LABEL, &arguments)?);
        let path = self.part(kind, locale, PATH, &arguments)?;
        Ok(Rendered {
            subject: one_line(&self.part(kind, locale, SUBJECT, &arguments)?),
            text: self.part(kind, locale, TEXT, &arguments)?,
            button: Button::new(label, path.trim(), self.app_url.as_ref()),
        })
    }

    fn part(&self, kind: Kind, locale: Locale, part: &str, arguments: &Value) -> Result<String, minijinja::Error> {
        self.environment.get_template(&name(kind, locale, part))?.render(arguments)
    }
}

/// What a template sees: optional arguments that did not come are empty.
fn context(kind: Kind, arguments: &BTreeMap<String, String>) -> Value {
    let mut arguments = arguments.clone();
    for name in kind.optional_arguments() {
        arguments.entry((*name).to_owned()).or_default();
    }
    Value::from(arguments)
}

fn name(kind: Kind, locale: Locale, part: &str) -> String {
    format!("{}/{}/{part}", locale.as_str(), kind.as_str())
}

/// Whatever the arguments hold, a subject stays one header line, and a label one button.
fn one_line(text: &str) -> String {
    text.replace(breaks_line, " ").trim().to_owned()
}

/// Control characters, and Unicode's own line and paragraph separators.
fn breaks_line(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

/// An RFC 3339 time as people of any language read it; anything else as it came.
fn moment(value: String) -> String {
    match DateTime::parse_from_rfc3339(&value) {
        Ok(time) => time.with_timezone(&Utc).format("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => value,
    }
}
