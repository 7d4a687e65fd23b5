//! SQL in words and parentheses, as far as a summary of it needs.

pub(super) enum Token<'a> {
    /// Of a qualified name the last part, without quotes.
    Word(&'a str),
    Open,
    Close,
    Other,
}

/// Passes over blanks, comments and what is quoted.
pub(super) struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    pub(super) fn of(sql: &'a str) -> Self {
        Self { rest: sql }
    }

    /// Splits off `least` bytes and what follows them and satisfies; both end between characters.
    fn cut(&mut self, least: usize, is_part: impl Fn(u8) -> bool) -> &'a str {
        let length = self.rest.bytes().skip(least).take_while(|byte| is_part(*byte)).count() + least;
        let (part, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.rest = rest;
        part
    }

    fn quoted(&mut self, quote: u8) -> &'a str {
        let part = self.cut(1, |byte| byte != quote);
        self.cut(1, |_| false);
        part.get(1..).unwrap_or_default()
    }

    fn qualified_name(&mut self) -> &'a str {
        let mut name = self.name();
        while self.rest.starts_with('.') {
            self.cut(1, |_| false);
            name = self.name();
        }
        name
    }

    fn name(&mut self) -> &'a str {
        match self.rest.bytes().next() {
            Some(b'"') => self.quoted(b'"'),
            _ => self.cut(0, is_of_a_name),
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let first = self.rest.bytes().next()?;
            let token = match first {
                _ if first.is_ascii_whitespace() => {
                    self.cut(1, |byte| byte.is_ascii_whitespace());
                    continue;
                }
                b'-' if self.rest.starts_with("--") => {
                    self.cut(2, |byte| byte != b'\n');
                    continue;
                }
                b'"' | b'_' | b'a'..=b'z' | b'A'..=b'Z' => Token::Word(self.qualified_name()),
                b'\'' => {
                    self.quoted(b'\'');
                    Token::Other
                }
                // A parameter or a number.
                b'$' | b'0'..=b'9' => {
                    self.cut(1, is_of_a_name);
                    Token::Other
                }
                _ => {
                    self.cut(1, |byte| !byte.is_ascii());
                    match first {
                        b'(' => Token::Open,
                        b')' => Token::Close,
                        _ => Token::Other,
                    }
                }
            };
            return Some(token);
        }
    }
}

fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}
