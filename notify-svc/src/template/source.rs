//! A template file in its parts, before any of them is parsed as a template.

use anyhow::{Context, ensure};

/// What is written in a file: the subject, a blank line, the text and, maybe, a last paragraph `[label](path)`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source<'a> {
    pub(super) subject: &'a str,
    pub(super) text: &'a str,
    /// Label and path.
    pub(super) button: Option<(&'a str, &'a str)>,
}

impl<'a> Source<'a> {
    pub(super) fn parse(file: &'a str) -> anyhow::Result<Self> {
        let (subject, rest) = file.split_once('\n').context("there is no text below the subject")?;
        let body = rest.strip_prefix('\n').context("the subject has more than one line: a blank one must follow")?;
        let body = body.trim_end();
        let (text, button) = match body.rsplit_once("\n\n") {
            Some((text, last)) => match button(last) {
                Some(button) => (text.trim_end(), Some(button)),
                None => (body, None),
            },
            None => (body, None),
        };
        ensure!(!subject.trim().is_empty(), "the subject is empty");
        ensure!(!text.trim().is_empty(), "the text is empty");
        Ok(Self { subject, text, button })
    }
}

fn button(paragraph: &str) -> Option<(&str, &str)> {
    let (label, path) = paragraph.strip_prefix('[')?.strip_suffix(')')?.rsplit_once("](")?;
    (!paragraph.contains('\n')).then_some((label, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_parts() {
        let source = |text, button| Source { subject: "Subject", text, button };
        let table = [
            ("Subject\n\nText\n", source("Text", None)),
            ("Subject\n\nOne\n\nTwo\n\n", source("One\n\nTwo", None)),
            ("Subject\n\nOne\n\nTwo\n\n[Go](there)\n", source("One\n\nTwo", Some(("Go", "there")))),
            ("Subject\n\n[Text](only)\n", source("[Text](only)", None)),
            ("Subject\n\nText\n\n[a](b) c\n", source("Text\n\n[a](b) c", None)),
            ("Subject\n\nText\n\n[{{ a }}]({{ b }})", source("Text", Some(("{{ a }}", "{{ b }}")))),
        ];
        for (file, expected) in table {
            assert_eq!(Source::parse(file).expect("sound"), expected);
        }
    }

    #[test]
    fn a_file_without_subject_or_text_is_refused() {
        for (file, fault) in [
            ("", "no text"),
            ("Subject", "no text"),
            ("Subject\nand more\n\nText", "more than one line"),
            ("\n\nText", "the subject is empty"),
            ("Subject\n\n\n", "the text is empty"),
        ] {
            let error = Source::parse(file).expect_err("refused").to_string();
            assert!(error.contains(fault), "{file:?}: {error}");
        }
    }
}
