//! A strict, single-pass reader of JSON text that yields byte ranges instead of values. It validates everything that
//! it steps over (grammar, escapes, nesting), so that no other parser can read the same bytes differently.

use std::borrow::Cow;
use std::ops::Range;

/// Deepest nesting that is read (data-plane.md 15.1).
pub const MAX_DEPTH: u32 = 128;

/// The text is not JSON, or nests too deep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid JSON at byte {at}")]
pub struct JsonError {
    /// Offset of the offending byte.
    pub at: usize,
}

/// First byte of a value tells its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// A number.
    Number,
    /// `true`, `false`.
    Bool,
    /// `null`
    Null,
}

/// Cursor over the text.
pub struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth: u32,
}

type Read<T> = Result<T, JsonError>;

impl<'a> Reader<'a> {
    /// A reader at the start of `text`.
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            at: 0,
            depth: 0,
        }
    }

    fn fail<T>(&self) -> Read<T> {
        Err(JsonError { at: self.at })
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Read<()> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        self.fail()
    }

    fn word(&mut self, word: &[u8]) -> Read<()> {
        if self
            .bytes
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(word))
        {
            self.at += word.len();
            return Ok(());
        }
        self.fail()
    }

    /// Type of the value that comes next.
    ///
    /// # Errors
    /// At the end of the text, or at a byte that begins no value.
    pub fn kind(&mut self) -> Read<Kind> {
        self.blanks();
        match self.peek() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            _ => self.fail(),
        }
    }

    /// Steps over the next value and returns its range.
    ///
    /// # Errors
    /// When it is not valid JSON.
    pub fn value(&mut self) -> Read<Range<usize>> {
        let kind = self.kind()?;
        let start = self.at;
        match kind {
            Kind::Object => self.members(&mut |reader, _| reader.value().map(drop))?,
            Kind::Array => self.elements(&mut |reader| reader.value().map(drop))?,
            Kind::String => self.string()?,
            Kind::Number => self.number()?,
            Kind::Bool if self.peek() == Some(b't') => self.word(b"true")?,
            Kind::Bool => self.word(b"false")?,
            Kind::Null => self.word(b"null")?,
        }
        Ok(start..self.at)
    }

    /// Reads an object; `visit` gets each member's unescaped name and must consume its value.
    ///
    /// # Errors
    /// When it is not a valid object, or `visit` fails.
    pub fn members(&mut self, visit: &mut dyn FnMut(&mut Self, Cow<'a, str>) -> Read<()>) -> Read<()> {
        self.blanks();
        self.expect(b'{')?;
        self.enter()?;
        self.blanks();
        if self.peek() == Some(b'}') {
            return self.leave();
        }
        loop {
            self.blanks();
            let start = self.at;
            self.string()?;
            let name = self.unescaped(start..self.at)?;
            self.blanks();
            self.expect(b':')?;
            visit(self, name)?;
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => return self.leave(),
                _ => return self.fail(),
            }
        }
    }

    /// Reads an array; `visit` must consume each element.
    ///
    /// # Errors
    /// When it is not a valid array, or `visit` fails.
    pub fn elements(&mut self, visit: &mut dyn FnMut(&mut Self) -> Read<()>) -> Read<()> {
        self.blanks();
        self.expect(b'[')?;
        self.enter()?;
        self.blanks();
        if self.peek() == Some(b']') {
            return self.leave();
        }
        loop {
            visit(self)?;
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => return self.leave(),
                _ => return self.fail(),
            }
        }
    }

    /// Offset of the next byte that was not read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// True when only blanks follow.
    pub fn at_end(&mut self) -> bool {
        self.blanks();
        self.at == self.bytes.len()
    }

    /// The text of a range that this reader returned.
    pub fn slice(&self, range: Range<usize>) -> &'a str {
        self.text.get(range).unwrap_or_default()
    }

    /// The meaning of a string token, borrowed when it has no escapes.
    ///
    /// # Errors
    /// When an escape has no meaning, for example half of a surrogate pair.
    pub fn unescaped(&self, token: Range<usize>) -> Read<Cow<'a, str>> {
        let at = token.start;
        unescape(self.slice(token)).ok_or(JsonError { at })
    }

    fn enter(&mut self) -> Read<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            self.fail()
        } else {
            Ok(())
        }
    }

    fn leave(&mut self) -> Read<()> {
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    fn string(&mut self) -> Read<()> {
        self.expect(b'"')?;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape()?;
                }
                None | Some(0..=0x1f) => return self.fail(),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Read<()> {
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return self.fail();
                    }
                    self.at += 1;
                }
            }
            _ => return self.fail(),
        }
        Ok(())
    }

    fn digits(&mut self) -> Read<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { self.fail() } else { Ok(()) }
    }

    fn number(&mut self) -> Read<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }
}

/// The meaning of a string token with its quotes.
pub fn unescape(token: &str) -> Option<Cow<'_, str>> {
    let inner = token.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(token).ok().map(Cow::Owned)
}

/// `text` as a JSON string token.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid(text: &str) -> bool {
        let mut reader = Reader::new(text);
        reader.value().is_ok() && reader.at_end()
    }

    #[test]
    fn it_accepts_and_refuses_what_serde_json_does() {
        let cases = [
            "{}",
            "[]",
            "[1,2]",
            "{\"a\":[{}]}",
            "-0.5e+10",
            "01",
            "1.",
            "-",
            "tru",
            "null ",
            "{\"a\"}",
            "{,}",
            "[1,]",
            "{\"a\":1,}",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\n\"",
            "\"\u{1f600}\"",
            "",
            " ",
            "1 2",
            "[",
            "{\"a\":",
            "\"\\u0041\"",
            "1e",
            "+1",
            ".5",
            "{1:2}",
            "nul",
            "\u{feff}{}",
        ];
        for case in cases {
            assert_eq!(
                valid(case),
                serde_json::from_str::<serde_json::Value>(case).is_ok(),
                "{case:?}"
            );
        }
    }

    #[test]
    fn nesting_has_its_bound() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(valid(&nested(128)));
        assert!(!valid(&nested(129)));
    }

    #[test]
    fn names_are_compared_after_unescaping() {
        let text = r#"{"m\u0065thod":1}"#;
        let mut names = Vec::new();
        Reader::new(text)
            .members(&mut |reader, name| {
                names.push(name.into_owned());
                reader.value().map(drop)
            })
            .unwrap();
        assert_eq!(names, ["method"]);
    }

    #[test]
    fn half_a_surrogate_pair_has_no_meaning() {
        assert!(unescape(r#""\ud800""#).is_none());
    }
}
