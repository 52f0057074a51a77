//! The table's part in a restart: the workers of a former listener are awaited, and their users' sockets wait with them.

use std::sync::Arc;

use super::{Event, RETURN_GRACE, Table};
use crate::{
    listener::{
        returning::{Rendezvous, Returned, welcome},
        worker::Worker,
    },
    roster::{Enrolled, Roster},
};

impl Table {
    /// Awaits the workers of a former listener.
    pub(super) fn expect(&mut self, roster: Roster) {
        let former = roster.former();
        self.roster = Some(roster);
        let workers = former.values().map(Vec::len).sum::<usize>();
        tracing::info!(workers, "workers of a former listener");
        for (uid, former) in former {
            match Rendezvous::listen(&self.settings.runtime_directory, uid) {
                Ok(rendezvous) => self.await_workers(former, rendezvous),
                Err(error) => tracing::warn!(%error, uid, "these workers cannot come back"),
            }
        }
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(RETURN_GRACE).await;
            let _ = events.send(Event::GraceOver).await;
        });
    }

    /// Those of one uid.
    fn await_workers(&mut self, former: Vec<Enrolled>, rendezvous: Rendezvous) {
        let users = former.iter().map(|former| former.user.clone());
        self.expected.extend(users.map(|user| (user, Vec::new())));
        let events = self.events.clone();
        tokio::spawn(async move {
            let taken = rendezvous.take_back(former, async move |former, socket, uid| {
                let events = events.clone();
                tokio::spawn(async move {
                    if let Some(returned) = welcome(former, socket, uid).await {
                        let _ = events.send(Event::Back(returned)).await;
                    }
                });
            });
            if let Err(error) = taken.await {
                tracing::warn!(users = ?error.users, %error, "workers of a former listener stay away");
            }
        });
    }

    /// A former listener's worker is one of ours from now on.
    pub(super) fn back(&mut self, returned: Returned) {
        let name = returned.account.name.clone();
        let is_same = returned.is_same && returned.services == self.settings.services;
        let is_current = is_same && !self.current.contains_key(&name);
        tracing::info!(user = name, is_current, "a worker is back");
        let worker = Worker {
            account: returned.account,
            pid: returned.pid,
            pidfd: Arc::new(returned.pidfd),
            control: returned.control,
            waiting: None,
            handed: 0,
            is_retired: false,
        };
        let id = self.register(worker, None);
        if is_current {
            self.current.insert(name.clone(), id);
        } else {
            self.let_go(id);
        }
        for placement in self.expected.remove(&name).unwrap_or_default() {
            self.place(placement);
        }
    }

    pub(super) fn stop_expecting(&mut self) {
        for placement in self
            .expected
            .drain()
            .flat_map(|(_, waiting)| waiting)
            .collect::<Vec<_>>()
        {
            self.place(placement);
        }
    }
}
