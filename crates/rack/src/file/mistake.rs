//! A mistake in a rack file, shown with its line whatever that line consists of.

use std::fmt;
use std::ops::Range;

/// Characters of a line that are shown; a file may have all that it says in one line.
const SHOWN: usize = 160;

/// Of these, at most so many before the mistake.
const SHOWN_BEFORE: usize = 100;

/// Characters of a problem, which repeats what was written.
const PROBLEM_CHARS_MAX: usize = 500;

/// A mistake in a rack file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// What is wrong and what is allowed.
    pub problem: String,
    /// The line itself.
    pub text: String,
    /// How many characters of it are wrong.
    pub width: usize,
}

impl std::error::Error for Mistake {}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, problem, text, width } = self;
        let gutter = " ".repeat(line.to_string().len());
        let before = column - 1;
        let skipped = before.saturating_sub(SHOWN_BEFORE);
        let (left, right) = (
            if skipped > 0 { "…" } else { "" },
            if text.chars().count() > skipped + SHOWN { "…" } else { "" },
        );
        let shown: String = text.chars().skip(skipped).take(SHOWN).map(|c| plain(c).unwrap_or(c)).collect();
        let indent = " ".repeat(before - skipped + left.chars().count());
        let marks = "^".repeat((*width).clamp(1, SHOWN - SHOWN_BEFORE));
        writeln!(f, "line {line}, column {column}: {problem}")?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{line} | {left}{shown}{right}")?;
        write!(f, "{gutter} | {indent}{marks}")
    }
}

impl Mistake {
    pub(super) fn new(source: &str, span: Range<usize>, problem: &str) -> Self {
        let start = source.floor_char_boundary(span.start);
        let before = &source[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let text = source[line_start..].lines().next().unwrap_or("");
        let column = before[line_start..].chars().count() + 1;
        let end = source.floor_char_boundary(span.end.min(line_start + text.len()));
        let width = source.get(start..end).map_or(1, |wrong| wrong.chars().count().max(1));
        let line = before.matches('\n').count() + 1;
        Self { line, column, problem: short(problem), text: text.to_owned(), width }
    }
}

/// What is shown instead of characters that would move the cursor or hide what is there.
fn plain(c: char) -> Option<char> {
    match c {
        '\t' => Some(' '),
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {
            Some('\u{fffd}')
        }
        _ => c.is_control().then_some('\u{fffd}'),
    }
}

/// A problem without what cannot be shown, and without the middle of what is too long.
fn short(problem: &str) -> String {
    let plain: Vec<char> = problem.chars().map(|c| plain(c).unwrap_or(c)).collect();
    let half = PROBLEM_CHARS_MAX / 2;
    if plain.len() <= PROBLEM_CHARS_MAX {
        return plain.into_iter().collect();
    }
    let (start, end) = (&plain[..half], &plain[plain.len() - half..]);
    start.iter().chain(&['…']).chain(end).collect()
}

/// The parser's words for what it expected, and what to write.
const EXPECTED: [(&str, &str); 6] = [
    ("expected u16", "expected a whole number up to 65535, without quotes"),
    ("expected u32", "expected a whole number up to 4294967295, without quotes"),
    ("expected a string", "expected text in quotes"),
    ("wanted string or table", "expected text in quotes"),
    (
        "invalid type: map, expected a sequence",
        "entries have two brackets on each side, for example [[compute]]",
    ),
    ("expected a sequence", "expected a list in brackets"),
];

/// The parser's words, with ours for what people trip over.
pub(super) fn sentence(message: &str) -> String {
    let message = message.trim().replace('`', "'").replace('\n', "; ");
    let known = EXPECTED.iter().find_map(|(theirs, ours)| Some((message.strip_suffix(theirs)?, ours)));
    known.map_or_else(|| message.clone(), |(start, ours)| format!("{start}{ours}"))
}
