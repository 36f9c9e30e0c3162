//! A line of a plan, word by word, with errors that say where.

/// A plan that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct PlanSyntaxError {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// What was expected, and what was found.
    pub reason: String,
}

/// As much of a word as helps to find it: some files have but one, of a gigabyte.
fn short(word: &str) -> String {
    const MOST: usize = 40;
    match word.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &word[..end]),
        None => word.to_owned(),
    }
}

/// The words of one line.
#[derive(Clone, Debug)]
pub(crate) struct Words<'a> {
    line: usize,
    /// Each with its column.
    words: Vec<(usize, &'a str)>,
    at: usize,
    end: usize,
}

impl<'a> Words<'a> {
    pub(crate) fn new(line: usize, text: &'a str) -> Self {
        let mut words = vec![];
        let mut start = None;
        for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
            match (c.is_whitespace(), start) {
                (false, None) => start = Some(at),
                (true, Some(from)) => {
                    words.push((text[..from].chars().count() + 1, &text[from..at]));
                    start = None;
                }
                _ => {}
            }
        }
        // A comment ends the line.
        if let Some(comment) = words.iter().position(|(_, word)| word.starts_with('#')) {
            words.truncate(comment);
        }
        Self { line, words, at: 0, end: text.trim_end().chars().count() + 1 }
    }

    pub(crate) fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).map(|(_, word)| *word)
    }

    pub(crate) const fn skip(&mut self) {
        self.at += 1;
    }

    /// Goes past `phrase` if it comes next, word by word.
    pub(crate) fn accept(&mut self, phrase: &str) -> bool {
        let mut at = self.at;
        for wanted in phrase.split(' ') {
            if self.words.get(at).is_none_or(|(_, word)| *word != wanted) {
                return false;
            }
            at += 1;
        }
        self.at = at;
        true
    }

    pub(crate) fn next(&mut self, wanted: &str) -> Result<(), PlanSyntaxError> {
        if self.accept(wanted) { Ok(()) } else { Err(self.error(&format!("expected {wanted}"))) }
    }

    pub(crate) fn number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, PlanSyntaxError> {
        let number = self.peek().and_then(|word| word.parse().ok());
        let number = number.ok_or_else(|| self.error(&format!("expected {what}")))?;
        self.skip();
        Ok(number)
    }

    /// An error at a word that was read already.
    pub(crate) fn error_at(&self, at: usize, reason: &str) -> PlanSyntaxError {
        Self { at, ..self.clone() }.error(reason)
    }

    /// Which word comes next, for [`error_at`](Self::error_at).
    pub(crate) const fn place(&self) -> usize {
        self.at
    }

    pub(crate) fn end(&self) -> Result<(), PlanSyntaxError> {
        if self.peek().is_none() { Ok(()) } else { Err(self.error("expected the end of the line")) }
    }

    /// An error at the next word.
    pub(crate) fn error(&self, reason: &str) -> PlanSyntaxError {
        let (column, found) = match self.words.get(self.at) {
            Some((column, word)) => (*column, format!("found {:?}", short(word))),
            None => (self.end, "found the end of the line".into()),
        };
        PlanSyntaxError { line: self.line, column, reason: format!("{reason}; {found}") }
    }
}
