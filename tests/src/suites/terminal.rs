//! Programs on a pseudo-terminal: what a person at a keyboard takes for granted.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use guestline_client::{Child, Event};

use super::shell;
use crate::{cases, eventually::eventually, runner::Outcome, target::Target};

const SUSPEND: u8 = 0x1a;

/// For one step of a dialogue, under emulation too.
const STEP: Duration = Duration::from_secs(60);

cases![
    the_leader_has_the_terminal_and_the_session: [21],
    a_new_size_reaches_the_program: [21],
    a_suspended_job_stops_and_goes_on: [21],
    a_vanished_client_hangs_the_terminal_up: [21],
];

async fn the_leader_has_the_terminal_and_the_session(target: &Target) -> Outcome {
    let mut screen = Screen::of(
        target
            .user("alice")
            .command("cat")
            .arg("/proc/self/stat")
            .terminal("vt100", 80, 24)
            .spawn()
            .await?,
    );
    let pid = screen.child.pid().to_string();
    let line = screen.line_with("(cat)").await?;
    // Fields 5 to 8 of /proc/PID/stat (proc(5)), the second of which may have spaces.
    let rest = line.rsplit_once(") ").context("no stat line")?.1;
    let [_, _, group, session, terminal, foreground] =
        rest.split(' ').take(6).collect::<Vec<_>>()[..]
    else {
        bail!("{line:?}");
    };
    ensure!(
        [group, session, foreground] == [pid.as_str(); 3] && terminal != "0",
        "{pid} is not its leader: {line:?}"
    );
    Ok(())
}

async fn a_new_size_reaches_the_program(target: &Target) -> Outcome {
    let mut screen = Screen::of(
        target
            .user("alice")
            .shell("trap 'stty size; exit 0' WINCH; stty size; while :; do sleep 0.1; done")
            .terminal("vt100", 80, 24)
            .spawn()
            .await?,
    );
    screen.until("24 80").await?;
    screen.child.input().resize(132, 50).await;
    screen.until("50 132").await?;
    ensure!(screen.child.wait().await?.success());
    Ok(())
}

/// ^Z and fg, as the shell's job control has them.
async fn a_suspended_job_stops_and_goes_on(target: &Target) -> Outcome {
    let mut screen = Screen::of(
        target
            .user("alice")
            .login_shell()
            .terminal("vt100", 80, 24)
            .spawn()
            .await?,
    );
    let keys = screen.child.input();
    // The quotes keep what is typed apart from what is answered.
    keys.write("echo re''ady; sh -c 'echo job:$$:; exec cat'\n")
        .await;
    screen.until("ready").await?;
    let job = screen.number_after("job:").await?;
    keys.write("one\n").await;
    screen.until("one\r\none\r\n").await?;
    keys.write(vec![SUSPEND]).await;
    let alice = target.user("alice");
    let state = async |wanted: &str| {
        eventually(&format!("the job's state is {wanted}"), STEP, async || {
            Ok(shell(&alice, &format!("cat /proc/{job}/stat"))
                .await?
                .1
                .contains(wanted))
        })
        .await
    };
    state(") T ").await?;
    // The shell has the terminal again.
    keys.write("echo he''re\n").await;
    screen.until("here").await?;
    keys.write("fg\n").await;
    state(") S ").await?;
    keys.write("two\n").await;
    screen.until("two\r\ntwo\r\n").await?;
    // ^D ends cat, and then the shell.
    keys.write(vec![4]).await;
    keys.write("exit 7\n").await;
    let status = screen.child.wait().await?;
    ensure!(status.code == Some(7), "{status:?}");
    Ok(())
}

async fn a_vanished_client_hangs_the_terminal_up(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let files = alice.files();
    let _ = files.remove_file("hung-up").await;
    let mut screen = Screen::of(
        alice
            .login_shell()
            .terminal("vt100", 80, 24)
            .spawn()
            .await?,
    );
    // In the foreground, in a group of its own, which only the terminal knows.
    let job = "sh -c 'trap \"echo yes > hung-up; exit\" HUP; echo job:$$:; while :; do sleep 0.1; done'\n";
    screen.child.input().write(job).await;
    let job = screen.number_after("job:").await?;
    let leader = screen.child.pid();
    drop(screen);
    eventually("the job heard SIGHUP", STEP, async || {
        Ok(files
            .read("hung-up")
            .await
            .is_ok_and(|text| text == b"yes\n"))
    })
    .await?;
    eventually("shell and job are gone", STEP, async || {
        let alive = format!("kill -0 {leader} 2>/dev/null || kill -0 {job} 2>/dev/null");
        Ok(!shell(&alice, &alive).await?.0)
    })
    .await
}

/// A program's terminal, and what it has shown.
struct Screen {
    child: Child,
    shown: String,
}

impl Screen {
    fn of(child: Child) -> Self {
        let shown = String::new();
        Self { child, shown }
    }

    async fn more(&mut self) -> Outcome {
        let event = tokio::time::timeout(STEP, self.child.event()).await;
        match event.with_context(|| format!("nothing came after {:?}", self.shown))?? {
            Event::Stdout(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
            other => bail!("{other:?} after {:?}", self.shown),
        }
        Ok(())
    }

    async fn until(&mut self, text: &str) -> Outcome {
        while !self.shown.contains(text) {
            self.more()
                .await
                .with_context(|| format!("waiting for {text:?}"))?;
        }
        Ok(())
    }

    /// The whole line that has a text.
    async fn line_with(&mut self, text: &str) -> anyhow::Result<String> {
        loop {
            let whole = self.shown.split_inclusive('\n');
            let mut whole = whole.filter(|line| line.ends_with('\n'));
            if let Some(line) = whole.find(|line| line.contains(text)) {
                return Ok(line.trim_end().to_owned());
            }
            self.more().await?;
        }
    }

    /// The number that stands between a mark and a colon, which the echo of what was typed does not have.
    async fn number_after(&mut self, mark: &str) -> anyhow::Result<u32> {
        loop {
            for (at, _) in self.shown.match_indices(mark) {
                let rest = &self.shown[at + mark.len()..];
                let number = rest
                    .split_once(':')
                    .and_then(|(number, _)| number.parse().ok());
                if let Some(number) = number {
                    return Ok(number);
                }
            }
            self.more().await?;
        }
    }
}
