//! The `guestline` command: files and programs of a VM, from the host's shell. See `guestline help`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
