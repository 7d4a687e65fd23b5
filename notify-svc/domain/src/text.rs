//! What a channel does to a plain text before it sends it: cut to a length, and escape what would be markup.

use std::borrow::Cow;

use unicode_segmentation::UnicodeSegmentation;

/// Stands for what was cut off; one UTF-16 code unit.
const ELLIPSIS: char = '…';

/// UTF-16 code units, which is how Telegram and JavaScript count.
pub fn utf16_units(text: &str) -> usize {
    text.chars().map(char::len_utf16).fold(0, usize::saturating_add)
}

/// At most that many UTF-16 code units, an ellipsis included where something was cut off.
pub fn cut(text: &str, units_max: usize) -> Cow<'_, str> {
    cut_by(text, units_max, utf16_units)
}

/// As `cut`, for a text that counts as it is after `escape_slack`.
pub fn cut_for_slack(text: &str, units_max: usize) -> Cow<'_, str> {
    cut_by(text, units_max, |part| utf16_units(&escape_slack(part)))
}

/// For Telegram's HTML mode: `<`, `>` and `&` must be replaced (core.telegram.org/bots/api#html-style). Quotes need not be
/// outside of tags; they are, so that the text may stand anywhere in HTML.
pub fn escape_telegram(text: &str) -> String {
    escape(text, &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#x27;")])
}

/// For Slack's mrkdwn: `&`, `<` and `>` are its control characters, and nothing else is to be replaced
/// (docs.slack.dev/messaging/formatting-message-text, "Escaping text").
pub fn escape_slack(text: &str) -> String {
    escape(text, &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;")])
}

fn escape(text: &str, replacements: &[(char, &str)]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match replacements.iter().find(|(special, _)| *special == character) {
            Some((_, replacement)) => escaped.push_str(replacement),
            None => escaped.push(character),
        }
    }
    escaped
}

/// `size` measures a part of the text, and the whole is the sum of its parts.
fn cut_by(text: &str, max: usize, size: impl Fn(&str) -> usize) -> Cow<'_, str> {
    if size(text) <= max {
        return Cow::Borrowed(text);
    }
    let Some(room) = max.checked_sub(ELLIPSIS.len_utf16()) else {
        return Cow::Borrowed("");
    };
    let mut kept = fitting(text.graphemes(true), room, &size);
    if kept == 0 {
        // A first character that is all accents: better part of it than nothing.
        kept = fitting(text.split_inclusive(|_| true), room, &size);
    }
    let mut short = text.get(..kept).unwrap_or_default().trim_end().to_owned();
    short.push(ELLIPSIS);
    Cow::Owned(short)
}

/// Bytes of the leading parts that fit.
fn fitting<'a>(parts: impl Iterator<Item = &'a str>, room: usize, size: impl Fn(&str) -> usize) -> usize {
    let (mut used, mut bytes) = (0_usize, 0_usize);
    for part in parts {
        used = used.saturating_add(size(part));
        if used > room {
            break;
        }
        bytes = bytes.saturating_add(part.len());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Texts with much that is special: markup, characters of two code units, clusters of several characters.
    fn texts() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            Just("<b>&amp;\"'".to_owned()),
            Just("👩‍👩‍👧‍👦".to_owned()),
            Just("🇺🇦".to_owned()),
            Just("e\u{301}\u{323}".to_owned()),
            Just("&".to_owned()),
            Just(" \n".to_owned()),
            any::<char>().prop_map(String::from),
            "[a-zа-я]{1,4}",
        ];
        prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
    }

    fn unescape(text: &str) -> String {
        let quotes = text.replace("&#x27;", "'").replace("&quot;", "\"");
        quotes.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        assert_eq!(cut("", 0), "");
        assert_eq!(cut("four", 4), "four");
        assert_eq!(cut("\u{1F600}", 2), "\u{1F600}");
    }

    #[test]
    fn what_does_not_fit_ends_in_an_ellipsis() {
        let table = [
            ("abcde", 4, "abc…"),
            ("ab de fg", 4, "ab…"),
            ("ab\u{1F600}", 3, "ab…"),
            ("ab\u{1F600}c", 4, "ab…"),
            ("ab\u{1F600}cd", 5, "ab\u{1F600}…"),
            ("a🇺🇦b", 4, "a…"),
            ("ae\u{301}e\u{301}", 4, "ae\u{301}…"),
            ("e\u{301}\u{301}\u{301}", 3, "e\u{301}…"),
            ("\u{1F600}", 1, "…"),
            ("ab", 0, ""),
        ];
        for (text, max, expected) in table {
            assert_eq!(cut(text, max), expected, "{text} {max}");
        }
        assert_eq!(cut_for_slack("&&&", 11), "&&…");
        assert_eq!(cut_for_slack("&&&", 15), "&&&");
    }

    #[test]
    fn escapes() {
        assert_eq!(escape_telegram("<b>&\"'/"), "&lt;b&gt;&amp;&quot;&#x27;/");
        assert_eq!(escape_slack("<!channel> & \"'"), "&lt;!channel&gt; &amp; \"'");
    }

    proptest! {
        #[test]
        fn cutting_keeps_a_whole_beginning_within_the_limit(text in texts(), max in 0_usize..60) {
            let short = cut(&text, max);
            prop_assert!(short.encode_utf16().count() <= max);
            if short != text {
                // A prefix of the string is one of whole characters: no surrogate pair is split.
                let beginning = short.strip_suffix('…').unwrap_or(&short);
                prop_assert!(text.starts_with(beginning));
                prop_assert!(max == 0 || short.ends_with('…'));
            }
            prop_assert_eq!(short == text, text.encode_utf16().count() <= max);
        }

        #[test]
        fn a_cluster_is_kept_or_left_out_whole(text in texts(), max in 12_usize..60) {
            let short = cut(&text, max);
            let ends: Vec<usize> = text.grapheme_indices(true).map(|(start, part)| start + part.len()).collect();
            let beginning = short.strip_suffix('…').unwrap_or(&short).trim_end();
            let beginning = if short == text { text.as_str() } else { beginning };
            let first = ends.first().copied().unwrap_or_default();
            let is_end = |bytes: usize| bytes == 0 || ends.contains(&bytes) || text[bytes..].starts_with(char::is_whitespace);
            prop_assert!(is_end(beginning.len()) || beginning.len() < first);
        }

        #[test]
        fn slack_counts_after_escaping(text in texts(), max in 0_usize..60) {
            prop_assert!(utf16_units(&escape_slack(&cut_for_slack(&text, max))) <= max);
        }

        #[test]
        fn escaping_loses_nothing_and_leaves_no_markup(text in texts()) {
            for escaped in [escape_telegram(&text), escape_slack(&text)] {
                prop_assert!(!escaped.contains(['<', '>']));
                prop_assert_eq!(unescape(&escaped), text.clone());
            }
        }
    }
}
