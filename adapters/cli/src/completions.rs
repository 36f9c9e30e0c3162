//! `vmtask completions`: what a shell needs to complete the command line.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::Error;
use crate::out;

pub(crate) fn run(shell: Shell) -> Result<u8, Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "vmtask", &mut script);
    out::line(String::from_utf8_lossy(&script).trim_end());
    Ok(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        <super::Cli as super::CommandFactory>::command().debug_assert();
    }
}
