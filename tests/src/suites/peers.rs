//! Who else connects to an agent's Unix socket: for the local target, which has one.

use std::path::Path;

use anyhow::{Context, ensure};

use super::{neighbours::ask, shell};
use crate::{cases, runner::Outcome, target::Target};

cases![another_user_of_this_system_is_closed_unheard: [25]];

/// The file's permissions let everybody in here: the kernel's word about the peer does not.
async fn another_user_of_this_system_is_closed_unheard(target: &Target) -> Outcome {
    let endpoint = target.endpoint().to_string();
    let socket = endpoint.strip_prefix("unix:").context("a Unix socket")?;
    let folder = Path::new(socket).parent().context("in a folder")?;
    let root = target.user("root");
    let open = format!("chmod 711 {}; chmod 777 {socket}", folder.display());
    ensure!(shell(&root, &open).await?.0, "the socket stays shut");
    let knock = ["knock", &format!("unix:{socket}")];
    let (alice, roots) = (
        ask(&target.user("alice"), &knock).await,
        ask(&root, &knock).await,
    );
    let shut = format!("chmod 700 {}; chmod 755 {socket}", folder.display());
    ensure!(shell(&root, &shut).await?.0);
    let (alice, roots) = (alice?, roots?);
    ensure!(alice == "closed", "alice was {alice}");
    ensure!(
        roots.starts_with("answered ok "),
        "root was {roots}: it shows nothing"
    );
    Ok(())
}
