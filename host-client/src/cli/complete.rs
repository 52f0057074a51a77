//! `guestline completions`.

use clap::CommandFactory;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The shell that it is for
    shell: clap_complete::Shell,
}

pub(super) fn run(arguments: &Arguments) -> u8 {
    let mut command = super::Arguments::command();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "guestline", &mut script);
    u8::from(std::io::Write::write_all(&mut std::io::stdout(), &script).is_err())
}
