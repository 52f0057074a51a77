//! Says when /etc/passwd or /etc/group was written or replaced, so that workers of changed users drain at once and not
//! only at their next connection.

use std::{io, os::fd::AsFd};

use tokio::{io::Interest, sync::mpsc};

use super::workers::{Event, WorkerId};
use crate::{
    sys::readiness,
    system::{accounts::Account, directory},
};
use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};

/// Starts to watch; the future calls `changed` for as long as it runs.
pub(super) fn watch(changed: impl Fn() + Send) -> io::Result<impl Future<Output = ()> + Send> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    // The folder, because tools replace the files rather than write them.
    inotify.add_watch(
        "/etc",
        AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE,
    )?;
    let ready_fd = readiness::watch(inotify.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
    Ok(async move {
        while let Ok(mut ready) = ready_fd.readable().await {
            match inotify.read_events() {
                Ok(events) => {
                    let names = events.iter().filter_map(|event| event.name.as_deref());
                    if names
                        .into_iter()
                        .any(|name| name == "passwd" || name == "group")
                    {
                        changed();
                    }
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(errno) => {
                    return tracing::error!(%errno, "cannot watch the accounts; each hello still looks them up");
                }
            }
        }
    })
}

/// Asks the guest's directory about workers whose accounts its files do not have, one after another.
pub(super) async fn look_again(accounts: Vec<(WorkerId, Account)>, events: mpsc::Sender<Event>) {
    for (id, account) in accounts {
        match directory::find(&account.name).await {
            Ok(Some(now)) if now == account => {}
            Ok(_) => drop(events.send(Event::AccountChanged(id)).await),
            Err(error) => {
                tracing::warn!(user = account.name, %error, "not known whether the account changed; its next hello asks again");
            }
        }
    }
}
