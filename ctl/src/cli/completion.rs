//! `completion`: shell completion scripts.

use clap::{Args, Command, ValueEnum};
use clap_complete::aot::{Bash, Fish, Zsh, generate};

use super::failure::Failure;
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
    pub(crate) fn run(self, program: &mut Command, out: &mut Output<'_>) -> Result<(), Failure> {
        let mut script = Vec::new();
        match self.shell {
            Shell::Bash => generate(Bash, program, "musterctl", &mut script),
            Shell::Zsh => generate(Zsh, program, "musterctl", &mut script),
            Shell::Fish => generate(Fish, program, "musterctl", &mut script),
        }
        Ok(out.raw(&script)?)
    }
}
