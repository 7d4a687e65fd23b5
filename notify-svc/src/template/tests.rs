//! Every template with every kind of argument, and what stops the start.

use super::*;

const APP_URL: &str = "https://app.example.org";

fn arguments(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn templates() -> Templates {
    Templates::load(Some(APP_URL)).expect("all templates are sound")
}

/// Only this, as the English template of LEVEL_UP, whose arguments are level and xp.
fn with_level_up(file: &'static str) -> anyhow::Result<Templates> {
    Templates::of([(Kind::LevelUp, [file, "Тема\n\nТекст\n"])], None)
}

#[test]
fn every_kind_reads_well_in_every_locale() {
    let templates = templates();
    let mut subjects = BTreeSet::new();
    for kind in Kind::ALL {
        for locale in Locale::ALL {
            let values = kind.arguments().iter().map(|name| (*name, "x<y")).collect::<Vec<_>>();
            let rendered = templates.render(*kind, locale, &arguments(&values)).expect("rendered");
            assert!(!rendered.text.contains("&lt;"), "plain text: {rendered:?}");
            assert!(!rendered.text.contains("](") && !rendered.text.ends_with('\n'), "{rendered:?}");
            subjects.insert((locale.as_str(), rendered.subject));
            let button = rendered.button.map(|button| (button.label.is_ascii(), button.url));
            let is_ours = |(is_english, url): (bool, String)| {
                is_english == (locale == Locale::En) && url.starts_with("https://app.example.org/")
            };
            assert_eq!(button.map(is_ours), (*kind != Kind::OperatorBroadcast).then_some(true), "{kind:?}");
        }
    }
    // Level two and deeper share theirs.
    assert_eq!(subjects.len(), 2 * (Kind::ALL.len() - 1), "{subjects:?}");
}

#[test]
fn a_commission_reads_well() {
    let commission =
        arguments(&[("amount", "11.70"), ("asset", "USDT"), ("level", "1"), ("rate", "30"), ("name", "Ann")]);
    let rendered = templates().render(Kind::CommissionReceived, Locale::En, &commission).expect("rendered");
    assert_eq!(rendered.subject, "You earned 11.70 USDT");
    assert_eq!(
        rendered.text,
        "You earned a commission of 11.70 USDT: 30% of the PRO purchase by Ann, level 1 of your network."
    );
    let url = "https://app.example.org/commissions".to_owned();
    assert_eq!(rendered.button, Some(Button { label: "See your commissions".to_owned(), url }));
}

#[test]
fn names_stay_plain_text() {
    let signup = arguments(&[("name", "<b>&"), ("xp", "35")]);
    let rendered = templates().render(Kind::SignupL1, Locale::Ru, &signup).expect("rendered");
    assert_eq!(rendered.text, "<b>& теперь в P2PHub по вашему приглашению. Вам начислено 35 XP.");
    assert_eq!(rendered.subject, "<b>& теперь в P2PHub по вашему приглашению");
}

#[test]
fn a_subject_is_one_line_whatever_the_arguments_hold() {
    let signup = arguments(&[("name", "A\r\nBcc: b@example.org\0\u{85}\u{2028}{{ xp }}"), ("xp", "1")]);
    let rendered = templates().render(Kind::SignupL1, Locale::En, &signup).expect("rendered");
    assert_eq!(rendered.subject, "A  Bcc: b@example.org   {{ xp }} has joined by your invitation");
}

#[test]
fn a_broadcast_may_bring_a_subject_and_a_button() {
    let templates = templates();
    let render = |pairs: &[(&str, &str)]| {
        templates.render(Kind::OperatorBroadcast, Locale::En, &arguments(pairs)).expect("rendered")
    };
    let plain = render(&[("text", "[Hi](there)\n\n[a](b)")]);
    assert_eq!((plain.subject.as_str(), plain.button), ("News from P2PHub", None));
    assert_eq!(plain.text, "[Hi](there)\n\n[a](b)");

    let full = render(&[("text", "Hi"), ("subject", " A\nb "), ("button_label", "Go](x\n"), ("button_url", "/news")]);
    assert_eq!(full.subject, "A b");
    let button = Button { label: "Go](x".to_owned(), url: "https://app.example.org/news".to_owned() };
    assert_eq!(full.button, Some(button));

    let unnamed = render(&[("text", "Hi"), ("subject", " \n"), ("button_url", "https://example.org/")]);
    assert_eq!(unnamed.subject, "News from P2PHub");
    assert_eq!(unnamed.button, Some(Button { label: "Open".to_owned(), url: "https://example.org/".to_owned() }));
}

#[test]
fn without_the_applications_url_there_are_no_buttons_below_it() {
    let templates = Templates::load(None).expect("all templates are sound");
    let level = arguments(&[("level", "2"), ("xp", "300")]);
    assert_eq!(templates.render(Kind::LevelUp, Locale::En, &level).expect("rendered").button, None);
}

#[test]
fn a_missing_argument_is_an_error() {
    assert!(templates().render(Kind::LevelUp, Locale::En, &arguments(&[("level", "2")])).is_err());
}

#[test]
fn what_is_wrong_with_a_template_stops_the_start() {
    assert!(with_level_up("Level {{ level }}\n\nYou have {{ xp }} XP.\n\n[See](network)\n").is_ok());
    for (file, fault) in [
        ("Level\n\nHello {{ name }}.\n", "name is no argument"),
        ("Level {{ name }}\n\nHello.\n", "name is no argument"),
        ("Level\n\n{% if level == \"7\" %}{{ name }}{% endif %}.\n", "name is no argument"),
        ("Level\n\nHello.\n\n[{{ name }}](x)\n", "name is no argument"),
        ("Level\n\nHello.\n\n[x](x/{{ name }})\n", "name is no argument"),
        ("Level\n\n{{ level\n", "syntax error"),
        ("Level\n\n{{ level|shout }}\n", "unknown filter"),
        ("{{ level }}\n\nHello.\n", "the subject is empty"),
        ("A{{ \"\\n\" }}b\n\nHello.\n", "the subject has more than one line"),
        ("A\nb\n\nHello.\n", "the subject has more than one line"),
        ("Level\n\n\n", "the text is empty"),
    ] {
        let error = format!("{:#}", with_level_up(file).expect_err(file));
        assert!(error.contains("template en/LEVEL_UP") && error.contains(fault), "{file:?}: {error}");
    }
    let error = Templates::load(Some("nowhere")).expect_err("refused").to_string();
    assert!(error.contains("NOTIFY_APP_URL"), "{error}");
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
