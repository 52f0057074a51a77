//! What needs more than busybox in the guest: raw vsock sockets by perl, and systemd.

use anyhow::ensure;

use super::shell;
use crate::{cases, runner::Outcome, target::Target};

cases![
    a_guest_process_that_connects_by_vsock_is_closed_unheard,
    an_unprivileged_process_cannot_bind_the_agents_port,
    the_agent_is_a_unit_that_came_up,
];

/// AF_VSOCK, which perl has no name for.
const CONNECT: &str = r#"
use Socket;
my ($cid) = @ARGV;
socket(my $s, 40, SOCK_STREAM, 0) or die "socket: $!";
# struct sockaddr_vm of linux/vm_sockets.h
connect($s, pack("SSLLx4", 40, 0, 777, $cid)) or die "connect: $!";
syswrite($s, "guestline/1 user=root\n");
my $n = sysread($s, my $answer, 1024);
print defined $n && $n > 0 ? "answer: $answer" : "closed";
"#;

const BIND: &str = r#"
use Socket;
my ($port) = @ARGV;
socket(my $s, 40, SOCK_STREAM, 0) or die "socket: $!";
print bind($s, pack("SSLLx4", 40, 0, $port, 0xffffffff)) ? "bound" : "refused: $!";
"#;

/// Promise 25: as root and as alice, through the loopback's CID 1 and the guest's own.
async fn a_guest_process_that_connects_by_vsock_is_closed_unheard(target: &Target) -> Outcome {
    let (loaded, _) = shell(
        &target.user("root"),
        "grep -q ^vsock_loopback /proc/modules",
    )
    .await?;
    ensure!(
        loaded,
        "vsock_loopback is not loaded, so that this case could not fail"
    );
    for user in ["root", "alice"] {
        let output = target
            .user(user)
            .command("perl")
            .args(["-e", CONNECT, "1"])
            .output()
            .await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            said == "closed",
            "{user} through CID 1: {said:?} {errors:?}"
        );
    }
    Ok(())
}

/// Promise 27: a port beside the agent's, which is taken; the kernel's rule is the same for all below 1024.
async fn an_unprivileged_process_cannot_bind_the_agents_port(target: &Target) -> Outcome {
    let bind = async |user: &str, port: &str| -> anyhow::Result<String> {
        let output = target
            .user(user)
            .command("perl")
            .args(["-e", BIND, port])
            .output()
            .await?;
        Ok(String::from_utf8(output.stdout)?)
    };
    ensure!(
        bind("alice", "778").await?.contains("Permission denied"),
        "alice bound port 778"
    );
    ensure!(
        bind("alice", "5000").await? == "bound",
        "alice cannot bind any port: the case shows nothing"
    );
    ensure!(
        bind("root", "778").await? == "bound",
        "nobody can bind port 778: the case shows nothing"
    );
    Ok(())
}

async fn the_agent_is_a_unit_that_came_up(target: &Target) -> Outcome {
    let (active, state) =
        shell(&target.user("root"), "systemctl is-active guestline-agent").await?;
    ensure!(active, "the unit is {state}");
    Ok(())
}
