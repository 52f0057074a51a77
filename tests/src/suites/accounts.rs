//! Accounts that are not like alice's (promise 15): what docs/protocol.md says of each.

use anyhow::ensure;
use guestline_client::{Vm, WriteOptions};

use super::{put, refusal, shell};
use crate::{cases, runner::Outcome, target::Target};

cases![
    an_account_without_a_login_shell_has_files_and_programs_and_no_shell: [15],
    an_account_without_shell_or_home_starts_at_the_root: [15],
    another_name_of_uid_0_is_root_under_that_name: [15],
    of_two_lines_with_one_name_the_first_is_the_account: [15],
];

/// Adds lines to /etc/passwd for as long as `work` takes.
pub(super) async fn with_accounts(
    target: &Target,
    lines: &[&str],
    work: impl AsyncFnOnce() -> Outcome,
) -> Outcome {
    let root = target.user("root");
    let before = root.files().read("/etc/passwd").await?;
    let text = String::from_utf8(before.clone())?;
    let text = format!("{text}{}\n", lines.join("\n"));
    // In place: in the local target another file is mounted there.
    put(&root.files(), "/etc/passwd", text, WriteOptions::truncate()).await?;
    let result = work().await;
    put(
        &root.files(),
        "/etc/passwd",
        before,
        WriteOptions::truncate(),
    )
    .await?;
    result
}

async fn said(vm: &Vm, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = vm.command(program).args(arguments).output().await?;
    ensure!(output.status.success(), "{program}: {output:?}");
    Ok(String::from_utf8(output.stdout)?.trim().into())
}

async fn an_account_without_a_login_shell_has_files_and_programs_and_no_shell(
    target: &Target,
) -> Outcome {
    let line = "shut:x:1900:1900::/:/usr/sbin/nologin";
    with_accounts(target, &[line], async || {
        let shut = target.user("shut");
        ensure!(
            shut.files()
                .read("/etc/passwd")
                .await?
                .starts_with(b"root:")
        );
        ensure!(said(&shut, "id", &["-u"]).await? == "1900");
        let (ran, words) = shell(&shut, "echo in").await?;
        ensure!(
            !ran && !words.contains("in\n"),
            "nologin ran a line: {words:?}"
        );
        Ok(())
    })
    .await
}

async fn an_account_without_shell_or_home_starts_at_the_root(target: &Target) -> Outcome {
    with_accounts(target, &["bare:x:1901:1901::/no/such/home:"], async || {
        let bare = target.user("bare");
        let (ran, words) = shell(&bare, "pwd; echo $HOME $SHELL").await?;
        ensure!(ran && words == "/\n/no/such/home /bin/sh\n", "{words:?}");
        let relative = bare.files().write("note", "x").await;
        let error = refusal("a file in a home that is not there", relative)?;
        ensure!(
            error.is_not_found() || error.is_permission_denied(),
            "{error:?}"
        );
        Ok(())
    })
    .await
}

async fn another_name_of_uid_0_is_root_under_that_name(target: &Target) -> Outcome {
    with_accounts(target, &["toor:x:0:0::/tmp:/bin/sh"], async || {
        let toor = target.user("toor");
        ensure!(said(&toor, "id", &["-u"]).await? == "0");
        let (_, words) = shell(&toor, "pwd; echo $USER").await?;
        ensure!(words == "/tmp\ntoor\n", "{words:?}");
        Ok(())
    })
    .await
}

async fn of_two_lines_with_one_name_the_first_is_the_account(target: &Target) -> Outcome {
    let lines = ["twin:x:1902:1902::/:/bin/sh", "twin:x:0:0::/:/bin/sh"];
    with_accounts(target, &lines, async || {
        ensure!(said(&target.user("twin"), "id", &["-u"]).await? == "1902");
        Ok(())
    })
    .await
}
