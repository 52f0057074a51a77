//! Whether a worker has anything to do: connections that are open, and processes that live.

use std::time::Duration;

use tokio::sync::watch;

/// Counts what keeps a worker from ending.
#[derive(Debug)]
pub(super) struct Activity {
    connections: watch::Sender<usize>,
    processes: watch::Receiver<usize>,
}

impl Activity {
    pub(super) fn new(processes: watch::Receiver<usize>) -> Self {
        Self {
            connections: watch::Sender::new(0),
            processes,
        }
    }

    /// One more connection, until the guard is dropped.
    pub(super) fn connection(&self) -> ConnectionGuard {
        self.connections.send_modify(|count| *count += 1);
        ConnectionGuard(self.connections.clone())
    }

    /// Waits until there was nothing to do for that long. Cancel-safe.
    pub(super) async fn idle_for(&self, time: Duration) {
        let mut connections = self.connections.subscribe();
        let mut processes = self.processes.clone();
        loop {
            let idle = *connections.borrow_and_update() == 0 && *processes.borrow_and_update() == 0;
            tokio::select! {
                // `self` holds the sender of the one, the registry that of the other.
                _ = connections.changed() => {}
                Ok(()) = processes.changed() => {}
                () = tokio::time::sleep(time), if idle => return,
            }
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct ConnectionGuard(watch::Sender<usize>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idle_time_counts_from_the_last_connection_or_process() {
        let processes = watch::Sender::new(1);
        let activity = Activity::new(processes.subscribe());
        let connection = activity.connection();
        let minute = Duration::from_secs(60);
        let start = tokio::time::Instant::now();
        let work = async {
            tokio::time::sleep(minute).await;
            drop(connection);
            tokio::time::sleep(minute).await;
            processes.send_replace(0);
        };
        tokio::join!(activity.idle_for(minute), work);
        assert_eq!(start.elapsed().as_secs(), 180);
    }
}
