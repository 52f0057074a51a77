//! `guestline-agent` is the listener; `guestline-agent worker NAME` is a worker, started by it alone;
//! `guestline-agent freezer MILLISECONDS` holds file systems frozen, started by a worker alone. `guestline-agent usher UID GID
//! GROUP…` attends one program in a login session, started by systemd at the listener's wish.

use std::process::ExitCode;

fn main() -> ExitCode {
    guestline_agent::main()
}
