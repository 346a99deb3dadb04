//! Colours and widths: only for a terminal, and not where `NO_COLOR` asks for none.

use std::io::{self, IsTerminal};

use crate::out;

/// Whether a stream that is (or is not) a terminal gets colours.
pub(crate) fn wants_colour(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether standard output gets colours.
pub(crate) fn is_stdout_coloured() -> bool {
    wants_colour(io::stdout().is_terminal())
}

/// Prints an error and its causes as one sentence.
pub(crate) fn print_error(error: &anyhow::Error) {
    let (red, plain) =
        if wants_colour(io::stderr().is_terminal()) { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    out::note(format_args!("{red}rackmem:{plain} {}", sentence(error)));
}

/// An error and its causes; a cause that has been said already is not said twice.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.is_empty() {
            said = cause;
        } else if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

/// Columns of a terminal that does not say how many it has.
const TERMINAL: usize = 80;

/// Columns of standard output: of the terminal, else of `COLUMNS`, else as many as it takes.
pub(crate) fn width() -> usize {
    let known = |width: &usize| *width > 0;
    let is_terminal = io::stdout().is_terminal();
    let terminal = is_terminal.then(crossterm::terminal::size).and_then(Result::ok);
    let terminal = terminal.map(|(width, _)| usize::from(width)).filter(known);
    let columns = || std::env::var("COLUMNS").ok()?.parse().ok().filter(known);
    terminal.or_else(columns).unwrap_or(if is_terminal { TERMINAL } else { usize::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn causes_are_said_once() {
        let refused = anyhow!("connection refused");
        assert_eq!(
            sentence(&refused.context("cannot reach the server")),
            "cannot reach the server: connection refused"
        );
        let refused =
            anyhow!("connection refused").context("no server there (connection refused); start one");
        assert_eq!(sentence(&refused), "no server there (connection refused); start one");
    }
}
