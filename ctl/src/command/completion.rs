//! `completion`: shell completion scripts.

use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::aot::{Bash, Fish, Zsh, generate};

use crate::args::Cli;
use crate::failure::Failure;
use crate::output::Output;

/// Write a shell's completion script
#[derive(Debug, Args)]
pub(crate) struct Completion {
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completion {
    pub(crate) fn run(self, out: &mut Output<'_>) -> Result<(), Failure> {
        let (mut command, mut script) = (Cli::command(), Vec::new());
        match self.shell {
            Shell::Bash => generate(Bash, &mut command, "musterctl", &mut script),
            Shell::Zsh => generate(Zsh, &mut command, "musterctl", &mut script),
            Shell::Fish => generate(Fish, &mut command, "musterctl", &mut script),
        }
        Ok(out.raw(&script)?)
    }
}
