//! RenderPreview: what a notification would look like on a channel.

use std::collections::BTreeMap;

use notify_domain::{
    channel::Channel,
    event::{InvalidRequest, check_arguments, check_locale},
    kind::Kind,
};
use p2phub_proto::notify::v1::{NotificationKind, RenderPreviewRequest, RenderPreviewResponse};
use service::error::Failure;

use crate::{
    channel,
    convert::KIND_PREFIX,
    template::{Locale, Templates},
};

/// What arguments look like; stands in for those that are missing. Optional ones stay away: what they do is shown when
/// they are given.
const SAMPLES: [(&str, &str); 9] = [
    ("name", "Ada"),
    ("xp", "35"),
    ("level", "3"),
    ("amount", "11.70"),
    ("asset", "USDT"),
    ("rate", "30"),
    ("expires", "2030-01-31T12:00:00Z"),
    ("reason", "The transfer was not found"),
    ("state", "PAID"),
];
/// For any other.
const SAMPLE_TEXT: &str = "Hello!";

/// Renders, and sends nothing.
pub(super) fn render(templates: &Templates, request: RenderPreviewRequest) -> Result<RenderPreviewResponse, Failure> {
    let kind = kind(request.kind).ok_or_else(|| Failure::violation("kind", "is not a known kind"))?;
    let channel =
        Channel::parse(&request.channel).ok_or_else(|| Failure::violation("channel", "is not a known channel"))?;
    check_locale(&request.locale).map_err(|error| invalid("locale", &error))?;
    let mut arguments: BTreeMap<String, String> = request.arguments.into_iter().collect();
    check_arguments(&arguments).map_err(|error| invalid("arguments", &error))?;
    for name in kind.arguments() {
        arguments.entry((*name).to_owned()).or_insert_with(|| sample(name).to_owned());
    }
    let locale = Locale::of(&request.locale);
    let rendered = templates.render(kind, locale, &arguments).map_err(|error| {
        tracing::error!(%error, "a template can't be rendered");
        Failure::internal()
    })?;
    let (text, button) = channel::preview(channel, &rendered);
    let (button_label, button_url) = button.map(|button| (button.label, button.url)).unwrap_or_default();
    let locale = locale.as_str().to_owned();
    Ok(RenderPreviewResponse { subject: rendered.subject, text, button_label, button_url, locale })
}

fn kind(wire: i32) -> Option<Kind> {
    let kind = NotificationKind::try_from(wire).ok()?;
    Kind::parse(kind.as_str_name().strip_prefix(KIND_PREFIX)?)
}

fn invalid(field: &str, error: &InvalidRequest) -> Failure {
    Failure::violation(field, error.to_string())
}

fn sample(name: &str) -> &'static str {
    SAMPLES.iter().find(|(known, _)| *known == name).map_or(SAMPLE_TEXT, |(_, value)| value)
}

#[cfg(test)]
mod tests {
    use notify_domain::event::{ARGUMENT_VALUE_BYTES_MAX, ARGUMENTS_MAX, LOCALE_BYTES_MAX};
    use tonic::Code;

    use super::*;

    fn request(kind: i32, channel: &str) -> RenderPreviewRequest {
        RenderPreviewRequest { kind, channel: channel.to_owned(), ..Default::default() }
    }

    fn level_up() -> RenderPreviewRequest {
        request(NotificationKind::LevelUp.into(), "telegram")
    }

    #[test]
    fn every_kind_has_a_preview_on_every_channel_without_a_single_argument() {
        let templates = Templates::load(None).expect("all templates are sound");
        for wire in (1..).map_while(|wire| NotificationKind::try_from(wire).ok()) {
            for channel in Channel::ALL {
                let preview = render(&templates, request(wire.into(), channel.as_str())).expect("a preview");
                assert!(!preview.subject.is_empty() && !preview.text.is_empty(), "{preview:?}");
                assert!(kind(wire.into()).is_some_and(|kind| kind.arguments().iter().all(|name| {
                    let is_shown = preview.text.contains(sample(name)) || *name == "expires";
                    is_shown || sample(name) == SAMPLE_TEXT
                })));
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let templates = Templates::load(None).expect("all templates are sound");
        let with = |pairs: Vec<(String, String)>| RenderPreviewRequest {
            arguments: pairs.into_iter().collect(),
            ..level_up()
        };
        let many = (0..=ARGUMENTS_MAX).map(|number| (number.to_string(), String::new())).collect();
        let bad = [
            ("kind", request(0, "telegram")),
            ("kind", request(99, "telegram")),
            ("channel", request(1, "")),
            ("channel", request(1, "pigeon")),
            ("locale", RenderPreviewRequest { locale: "x".repeat(LOCALE_BYTES_MAX + 1), ..level_up() }),
            ("arguments", with(vec![("level".to_owned(), "x".repeat(ARGUMENT_VALUE_BYTES_MAX + 1))])),
            ("arguments", with(vec![("level".to_owned(), "\0".to_owned())])),
            ("arguments", with(many)),
        ];
        for (field, request) in bad {
            let failure = render(&templates, request).expect_err(field);
            assert_eq!((failure.code, failure.violations[0].0.as_str()), (Code::InvalidArgument, field));
        }
    }
}
