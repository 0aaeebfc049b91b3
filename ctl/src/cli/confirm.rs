//! Confirmation of a change that cannot be undone: `--yes`, or an answer on a terminal.

use std::io::{self, IsTerminal as _, Write as _};

use muster_types::text::sanitize_lines;

use super::failure::{CommandError, ExitCode};

/// Error of a change that was not confirmed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfirmError {
    #[error(
        "{reason}, so this needs a confirmation, and there is no terminal to ask on\n\
         nothing was changed\n\
         try: the same with --yes"
    )]
    NoTerminal { reason: String },
    #[error("not confirmed; nothing was changed")]
    Declined,
}

impl CommandError for ConfirmError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoTerminal { .. } => ExitCode::Usage,
            Self::Declined => ExitCode::Failed,
        }
    }
}

/// Asks on the terminal, unless `yes`. `reason` completes "…, so this needs a confirmation".
pub(crate) fn confirm(yes: bool, reason: &str, question: &str) -> Result<(), ConfirmError> {
    if yes {
        return Ok(());
    }
    let (stdin, mut stderr) = (io::stdin(), io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Err(ConfirmError::NoTerminal { reason: reason.to_owned() });
    }
    write!(stderr, "{} [y/N] ", sanitize_lines(question)).ok();
    stderr.flush().ok();
    let mut answer = String::new();
    // An error, like the end of the input, is no confirmation.
    stdin.read_line(&mut answer).ok();
    if is_yes(&answer) { Ok(()) } else { Err(ConfirmError::Declined) }
}

fn is_yes(answer: &str) -> bool {
    ["y", "yes"].contains(&answer.trim().to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_confirms() {
        for (answer, confirmed) in [
            ("y\n", true),
            ("Yes\n", true),
            ("\n", false),
            ("", false),
            ("no\n", false),
            ("yy", false),
        ] {
            assert_eq!(is_yes(answer), confirmed, "{answer:?}");
        }
    }
}
